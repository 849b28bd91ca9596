//! The server on real sockets: what a client sees, and what it cannot do.

mod abuse;
mod descriptors;
mod harness;
mod lifetime;
mod requests;
mod streams;
