"""One tick: mutations, processors, and the way from computed to durable."""
