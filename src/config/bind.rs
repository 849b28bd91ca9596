//! Where a server listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A port of an address, or a socket in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// As in `127.0.0.1:8000`.
    Net(SocketAddr),
    /// As in `unix:/run/holdfast/holdfast.sock`.
    Unix(PathBuf),
}

/// What `sockaddr_un` holds besides the byte that ends it (unix(7)).
const PATH_BYTES_MAX: usize = 107;

impl Bind {
    /// Whether only this machine can connect there.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Net(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Bind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.ends_with('/') && path.len() <= PATH_BYTES_MAX => {
                Ok(Self::Unix(path.into()))
            }
            Some(_) => Err(()),
            None => text.parse().map(Self::Net).map_err(drop),
        }
    }
}

/// As it is written.
impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_listens_on_a_port_or_on_a_path() {
        for (text, is_local) in [
            ("127.0.0.1:8000", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("0.0.0.0:80", false),
            ("unix:/run/holdfast/holdfast.sock", true),
        ] {
            let bind: Bind = text.parse().unwrap();
            assert_eq!((bind.to_string(), bind.is_local()), (text.to_owned(), is_local));
        }
        let too_long = format!("unix:/{}", "x".repeat(PATH_BYTES_MAX));
        for wrong in ["8000", "localhost:8000", "unix:", "unix:holdfast.sock", "unix:@name", "unix:/run/", &too_long] {
            assert_eq!(wrong.parse::<Bind>(), Err(()), "{wrong}");
        }
    }
}
