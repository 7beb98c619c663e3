"""Records in the making: builders, shards and manifests."""
