//! The primitives that the pool's protocol is built on: `parking_lot`'s, or, with the feature `model`, shuttle's.
