//! What `bench/inner.rs` measures of this module.

use super::limits::Limits;
use super::parser::{Parsed, Parser};
use super::request::{Peer, Request, Version};
use super::response::{Form, Response};

/// The one request that these bytes are; `None` if they are not one.
pub fn read(bytes: &[u8], limits: &Limits) -> Option<Request> {
    match Parser::new().advance(bytes, Peer::Local, limits) {
        Ok(Parsed::Whole(request, _)) => Some(request),
        _ => None,
    }
}

/// The bytes that go over a connection that stays.
pub fn write(response: Response) -> Vec<u8> {
    response.render(Form { version: Version::Http11, head_only: false, keep_alive: true })
}
