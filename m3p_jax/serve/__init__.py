"""The web page of `--mode=serve`; needs requirements-demo.txt."""
