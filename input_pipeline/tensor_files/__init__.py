"""Files of tensors and pickles, read without running what is in them."""
