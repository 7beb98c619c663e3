"""What files of captions share: lines, tables, splits, Karpathy's JSON."""
