"""Weight files and pickles, read without running what is in them."""
