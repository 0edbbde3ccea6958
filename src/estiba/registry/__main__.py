"""`python -m estiba.registry`: what `estiba registry serve` becomes."""

from estiba.registry.main import main

main()
