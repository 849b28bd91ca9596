//! HTTP/1.1 for a network that is not to be trusted, with a fixed number of threads.
//!
//! A [`Server`]'s threads wait on one epoll set and read whole requests out of bounded buffers. A [`Service`] gets each as an
//! [`Exchange`]: the [`Request`], and a [`Responder`] that takes the connection along to whichever thread answers, often one
//! of a [`Lane`]; an answer that goes on and on is a [`Stream`]. What is no request, comes too slowly or is too much, the
//! connection layer refuses by itself ([`Refusal`]).
//!
//! The files, from bytes to threads: `scan`, `chunked`, `head` and `parser` (pure); `request`, `response`, `uri`, `router`;
//! `connection` and `socket` (one client), `slots` (all of them), `front` (who does what with them, and when), `accept`, `responder`, `stream`,
//! `server`.

mod accept;
mod chunked;
mod connection;
mod front;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod head;
#[cfg(feature = "inner-loops")]
pub mod inner;
mod lane;
mod limits;
mod parser;
mod refusal;
mod request;
mod responder;
mod response;
mod router;
mod scan;
mod server;
mod slots;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod uri;

pub use front::Service;
pub use lane::{Lane, LaneStats};
pub use limits::Limits;
pub use refusal::{Caller, Refusal};
pub use request::{Peer, Request, Version};
pub use responder::{Exchange, Parked, Responder};
pub use response::Response;
pub use router::{Found, Params, Router};
pub use server::{Meter, Server, Stats};
pub use stream::{Stream, StreamError};
pub use uri::{BadEncoding, Query};
// Part of this module's interface, so that nobody else needs to know where they come from.
pub use tiny_http::{Method, StatusCode};
