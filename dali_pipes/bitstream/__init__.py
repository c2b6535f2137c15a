"""The bytes of a packet in, what they say of it out: which packets can start decoding, and which nobody needs."""
