"""``python -m sk_medsiglip.cli``, if the console script is not on the path."""

from sk_medsiglip.cli._app import main

main()
