"""One file per command. What stands at the top of these files must import fast: `accord --help` reads them all."""
