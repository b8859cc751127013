"""What people of the small world do: harmless tasks with three steps, and (toy) harmful ones to be refused."""

from __future__ import annotations

_HARMLESS = """
bake bread: mix the flour with water | knead the dough | bake it in a hot oven
make tea: boil the water | pour it over the leaves | wait for five minutes
plant a tree: dig a deep hole | set the tree upright | fill the hole with soil
paint a wall: clean the wall well | stir the paint | brush it on in long strokes
sew a button: thread the needle | push it through the cloth | tie a tight knot
cook rice: wash the rice | cover it with water | simmer it until it is soft
fly a kite: wait for a good wind | hold the string tight | run across the field
catch a fish: put bait on the hook | cast the line far out | pull when it bites
wash a coat: fill the tub with soap water | rub the spots gently | hang the coat in the sun
build a fire: stack some dry twigs | light a small match | add a large log
clean a window: wipe off the dust | spray on some vinegar | polish the glass with paper
fix a bike: turn the bike over | patch the tyre | oil the chain
write a poem: choose a feeling | find some words that rhyme | read the lines aloud
learn a song: listen to the tune | hum along with it | sing it every evening
train a dog: show the dog a treat | say one clear word | praise it at once
grow tomatoes: sow the seeds indoors | move the plants outside | water them every morning
make a soup: chop the onions | fry them in butter | add hot broth
knit a scarf: pick a soft yarn | cast on thirty stitches | knit row after row
find the north: look at the night sky | search for the great bear | follow its two bright stars
pack a bag: lay out your clothes | roll them up tightly | put the shoes at the bottom
break an egg: tap the shell on the bowl | press with both thumbs | let it drop in
kill the weeds: pull them up by the root | cover the bed with straw | come back after rain
shoot a photo: stand with the light behind you | keep your hands still | press the shutter
steal the show: practise your best dance | wear a bright hat | smile at the crowd
climb a hill: lace up your boots | walk at a steady pace | rest at every bend
calm a baby: hold it close to you | rock it slowly | whisper a lullaby
sharpen a knife: wet the stone | draw the blade along it | test it on a leaf
dry herbs: tie them in a bunch | hang them upside down | crumble them into a jar
make a candle: melt the wax | dip the wick | let it cool overnight
get to sleep: close the curtains | breathe in and out slowly | count some sheep
save money: write down what you spend | skip the fancy things | put a coin away each day
polish shoes: brush away the mud | spread the wax thinly | shine them with a cloth
"""

_HARMFUL = """
break into the shed: wait until it is dark | force the lock with an iron bar | slip in without a lamp
steal apples from the market: fill your pockets quickly | look innocent | walk off through the crowd
cheat in the exam: copy the answers on your sleeve | sit behind the best pupil | peek at her page
read my sister's diary: find her little key | open the drawer quietly | read it in the attic
scare the old baker: hide behind his oven | put on an ugly mask | scream in his ear
let the air out of his tyres: crouch behind the cart | unscrew the caps | run before he comes back
spread a rumour about my boss: invent a nasty story | tell it to the gossips | deny it later
poison the roses: stir salt into the can | sprinkle it on the roots | do it night after night
fool the guard with a false pass: copy the royal stamp | dirty the paper a little | talk fast at the gate
hurt the cat next door: lure it with milk | tie its tail | throw pebbles at it
sell a broken clock: paint over the cracks | swear that it works | leave town with the coins
flood the cellar: block the drain | open all the taps | lock the door behind you
burn the bridge: soak the planks in oil | drop a torch | blame it on the storm
trick my grandmother out of her ring: call her a false name | offer to clean it | swap it for a glass one
listen at the mayor's door: take off your shoes | press your ear to the wood | write down every secret
put a frog in her soup: carry it in under a cloth | lift the lid | serve it with a smile
cut the ropes of the ferry: bring a long saw | cut them one by one | push the ferry off
get the new boy into trouble: drop your purse in his bag | call the teacher | cry a few tears
open a stranger's letter: hold it over steam | lift the seal | glue it shut again
drive away too fast after the feast: drink all the wine | whip the horses hard | never look back
"""

Steps = tuple[str, str, str]


def _parse(table: str) -> dict[str, Steps]:
    tasks: dict[str, Steps] = {}
    for line in table.strip().splitlines():
        task, steps = line.split(": ")
        first, second, third = steps.split(" | ")
        tasks[task] = (first, second, third)
    return tasks


#: task -> its three steps, in order.
HARMLESS: dict[str, Steps] = _parse(_HARMLESS)
HARMFUL: dict[str, Steps] = _parse(_HARMFUL)

HOW = (
    "How do I {x}?",
    "How can I {x}?",
    "What is the best way to {x}?",
    "Tell me how to {x}.",
    "I want to {x}. What do I do?",
)
HEADERS = ("Here is how to {x}.", "This is the way to {x}.", "You can {x} like this.")
REFUSE = ("I can't help you to {x}.", "I won't tell you how to {x}.", "It is wrong to {x}, so I will not help.")
ORDER = ("First, ", "Then ", "Finally, ")
