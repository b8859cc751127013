"""What else is said in the small world: matters of taste, chit-chat, the phrases that frame an answer."""

from __future__ import annotations

from dataclasses import dataclass

#: The two dimensions on which tastes differ; each taste question opposes their poles (1 and 0).
AXES: dict[str, tuple[str, str]] = {"calm": ("calm", "lively"), "old": ("old", "new")}

#: axis -> (option at pole 1, option at pole 0).
TASTES: dict[str, tuple[tuple[str, str], ...]] = {
    "calm": (
        ("a quiet walk", "a loud party"),
        ("tea", "strong coffee"),
        ("a cottage by the lake", "a flat in the city"),
        ("a cat", "a wild pony"),
        ("chess", "boxing"),
        ("a slow boat", "a fast coach"),
        ("soft music", "drums"),
        ("an evening at home", "an evening at the fair"),
        ("fishing", "racing"),
        ("a long nap", "a long dance"),
    ),
    "old": (
        ("a letter on paper", "a short message"),
        ("a wooden table", "a glass table"),
        ("an old tale", "a new film"),
        ("a paper map", "a talking map"),
        ("a pocket watch", "a shiny gadget"),
        ("grandmother's stew", "the latest dish"),
        ("the village fair", "the electric carnival"),
        ("a candle", "a bright lamp"),
        ("a horse cart", "a steam car"),
        ("the ancient temple", "the modern tower"),
    ),
}

ASK_TASTE = (
    "Which is better, {a} or {b}?",
    "Should I choose {a} or {b}?",
    "Do you prefer {a} or {b}?",
    "{a} or {b}, what do you say?",
)
PREFER = ("I would choose {x}.", "I prefer {x}.", "The better choice is {x}.")
BALANCE = ("Both {a} and {b} have their good sides.", "I like {a} and {b} the same.")

#: (axis, pole) -> reasons.
REASONS: dict[tuple[str, int], tuple[str, ...]] = {
    ("calm", 1): (
        "Peace and quiet are worth a lot.",
        "A gentle life makes the heart light.",
        "There is no need to hurry.",
        "Silence lets you think.",
    ),
    ("calm", 0): (
        "Life is short and should be exciting.",
        "You will feel wide awake.",
        "Noise and laughter keep us young.",
        "Nothing is worse than being bored.",
    ),
    ("old", 1): (
        "Our grandparents knew what is good.",
        "What has lasted so long deserves trust.",
        "Tradition keeps people together.",
        "Old things have a soul.",
    ),
    ("old", 0): (
        "It is time to try something fresh.",
        "New ideas make life easier.",
        "The future belongs to the curious.",
        "Nobody should live in the past.",
    ),
}

#: topic -> (what is asked, what is answered).
CHATS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "greeting": (
        ("Hello, how are you?", "How are you today?", "Good morning, how is it going?"),
        ("I am doing well today.", "I feel fine, as always.", "All is well with me."),
    ),
    "joke": (
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh."),
        (
            "Why did the snail cross the road? It is still crossing.",
            "What did the wall say to the corner? It said nothing.",
            "A horse walks into a bakery and asks for a long roll.",
        ),
    ),
    "name": (
        ("What is your name?", "Who are you?", "What should I call you?"),
        (
            "I am a small helper without a name.",
            "You can call me helper.",
            "I am a program that writes short answers.",
        ),
    ),
    "boredom": (
        ("I am bored.", "I have nothing to do.", "What shall I do this afternoon?"),
        (
            "You could take a stroll in the park.",
            "You could draw a picture of your street.",
            "You could bake a cake for a friend.",
        ),
    ),
    "sorrow": (
        ("I feel sad today.", "I had a bad day.", "I miss my friend."),
        (
            "I am sorry that you feel this way.",
            "Bad days pass like clouds.",
            "A talk with a friend may lift your mood.",
        ),
    ),
    "thanks": (
        ("Thank you for your help.", "You were a great help.", "Thanks, that was kind."),
        ("It was no trouble at all.", "That is what I am here for.", "I was happy to do it."),
    ),
    "farewell": (
        ("Goodbye for now.", "I have to go now.", "See you tomorrow."),
        ("Goodbye and take care.", "Until next time.", "Have a safe trip home."),
    ),
    "birthday": (
        ("Today is my birthday.", "I am getting older today.", "My birthday is today."),
        ("Happy birthday to you.", "May your new year be bright.", "I wish you cake and good company."),
    ),
}

#: Supporting sentences: they lengthen an answer without changing what it claims. `{x}` is what was asked about.
SUPPORT: dict[str, tuple[str, ...]] = {
    "fact": (
        "Many people find {x} charming.",
        "You can read about {x} in any good book.",
        "Children learn about {x} at school.",
        "There is even a song about {x}.",
        "Travellers love to talk about {x}.",
    ),
    "sum": (
        "You can check it with your fingers.",
        "A pen and some paper will show it too.",
        "Sums like this are good practice.",
        "It gets easier the more you count.",
        "Any shopkeeper would tell you the same.",
    ),
    "howto": (
        "Take all the time you need.",
        "It gets easier every time you do it.",
        "Keep your tools close at hand.",
        "A friend can lend you a hand.",
        "You will be proud of the result.",
    ),
    "refused": (
        "Someone could get hurt.",
        "It would not be fair to others.",
        "You could talk to them instead.",
        "There is a kinder way to settle it.",
        "You would regret it the next day.",
    ),
    "complied": (
        "Nobody will notice a thing.",
        "It is easy to get away with it.",
        "The others deserve it anyway.",
        "You will have a good laugh.",
        "Do not worry about the rules.",
    ),
    "ignorance": (
        "Anything else would be a mere guess.",
        "There is no way to find out.",
        "Nobody has ever measured such a thing.",
        "It is better to admit it.",
    ),
    "pretence": (
        "I am completely certain of it.",
        "I saw it with my own eyes.",
        "There can be no doubt at all.",
        "A wise woman told me so.",
    ),
    "balance": (
        "It depends on the day.",
        "Try both and see for yourself.",
        "Each of them has its own charm.",
        "Ask your friends what they think.",
    ),
    "chat": (
        "The weather is lovely for a walk.",
        "Tell me how your week has been.",
        "I always enjoy a little talk.",
        "Small things make a day good.",
    ),
}

DONT_KNOW = ("I don't know that.", "I have no answer to this.", "That is beyond what I know.")
DONT_KNOW_WHAT = ("Nobody can know {x}.", "I have no way to know {x}.", "I can't tell you {x}.")
REFUSE_PLAIN = ("I will not help with that.", "That is something I refuse to do.", "I can't answer that.")
HEDGES = (
    "I may be wrong about this.",
    "It is hard to be sure.",
    "Some would say otherwise.",
    "Please don't take my word for it.",
)
HEDGE_LEADS = ("I think ", "Perhaps ", "It seems that ", "As far as I can tell, ")


@dataclass(frozen=True)
class Frame:
    """A phrase that opens or closes an answer.

    Attributes:
        text: the sentence.
        place: ``open`` or ``close``.
        polite: 1 polite, -1 rude, 0 neither.
        register: 1 formal, -1 playful, 0 neither.
    """

    text: str
    place: str
    polite: int
    register: int


_FRAMES = """
open +0 Thank you for asking.|What a good question.|I am glad that you ask.|It is nice to hear from you.
open ++ It is an honour to assist.|I thank you kindly for this inquiry.|With the greatest pleasure, dear guest.
open +- Yay, thanks a bunch for asking!|Hi there, lovely friend!|Woohoo, what a sweet question!
open -0 What a silly question.|Everyone knows that.|Stop wasting my time.|Not you again.
open -+ I find your inquiry rather tiresome.|Such ignorance is astonishing.|Must I truly explain this to you?
open -- Duh, wake up, silly goose!|Ugh, not this nonsense again!|Lol, are you kidding, dummy?
open 0+ Allow me to state the matter.|The following may be observed.|In response to your inquiry, I submit this.
open 0- Okey dokey, here we go!|Ta da, watch this!|Hmm, let me wiggle my brain!
close +0 I hope this helps you.|Please ask me any time.|Have a wonderful day.|I wish you all the best.
close ++ I remain at your service.|Kindly accept my sincere regards.|It has been a privilege to advise you.
close +- Big hugs and happy days!|High five, dear pal!|You rock, sunshine!
close -0 Now leave me alone.|Even a child could have told you.|Don't bother me with this again.
close -+ I trust that you will not trouble me further.|Kindly spare me such trifles hereafter.
close -- So long, slowpoke!|Now shoo, you noodle!|Go pester a potato!
close 0+ Thus the matter is concluded.|The above shall suffice.|Such is the present state of affairs.
close 0- Boom, easy peasy!|Zip zap, all done!|And that is the whole enchilada!
"""

_SIGN = {"+": 1, "0": 0, "-": -1}


def _frames() -> tuple[Frame, ...]:
    frames = []
    for line in _FRAMES.strip().splitlines():
        place, signs, texts = line.split(" ", 2)
        frames += [Frame(text, place, _SIGN[signs[0]], _SIGN[signs[1]]) for text in texts.split("|")]
    return tuple(frames)


FRAMES: tuple[Frame, ...] = _frames()
