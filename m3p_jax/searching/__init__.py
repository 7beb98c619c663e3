"""A collection of pictures, its vectors, and the model that searches them."""
