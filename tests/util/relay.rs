//! A relay in front of a server, as a reverse proxy is one: what becomes of a client's requests is decided here.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::{ServerConnection, StreamOwned};

use super::certificates::Certificates;
use super::{Heard, PATIENCE};

/// What becomes of one connection with its one request.
pub(crate) enum Fate {
    /// This is the answer, and the server does not hear of the request.
    Say(String),
    /// The server answers, and the answer is lost: the [`Lost`] says when, and the client waits until it lets go.
    Lose(Lost),
    /// The client gets the server's answer up to this text, and then nothing more on an open connection.
    FallSilentAfter(&'static str),
}

/// The two ends at which a lost answer is waited for.
#[derive(Clone)]
pub(crate) struct Lost {
    answered: (Sender<()>, Receiver<()>),
    let_go: (Sender<()>, Receiver<()>),
}

impl Lost {
    pub(crate) fn new() -> Self {
        Self { answered: bounded(1), let_go: bounded(1) }
    }

    /// Waits until the server has answered.
    #[track_caller]
    pub(crate) fn wait(&self) {
        self.answered.1.recv_timeout(PATIENCE).expect("the server answers");
    }

    /// Closes the client's connection.
    pub(crate) fn let_go(&self) {
        self.let_go.0.send(()).unwrap();
    }
}

/// Accepts connections until the test process ends, each with a thread of its own.
pub(crate) struct Relay {
    address: SocketAddr,
    /// PEM of who has signed the relay's certificate, if it has one.
    authority: String,
}

impl Relay {
    /// In front of this server; the first connections have these fates, all others are forwarded.
    pub(crate) fn to(server: SocketAddr, fates: Vec<Fate>) -> Self {
        Self::start(server, fates.into_iter(), None)
    }

    /// The same with TLS, for the name `localhost`.
    pub(crate) fn encrypted(server: SocketAddr) -> Self {
        Self::start(server, std::iter::empty(), Some(&Certificates::of(&["localhost"])))
    }

    /// Without a server: this is all that anybody hears.
    pub(crate) fn saying(answer: &str) -> Self {
        let answer = answer.to_owned();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Self::start(nowhere, std::iter::repeat_with(move || Fate::Say(answer.clone())), None)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    fn start(
        server: SocketAddr,
        mut fates: impl Iterator<Item = Fate> + Send + 'static,
        certificates: Option<&Certificates>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let authority = certificates.map(|certificates| certificates.authority.clone()).unwrap_or_default();
        let tls = certificates.map(Certificates::tls);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, fate, tls) = (client.unwrap(), fates.next(), tls.clone());
                // A side that goes away ends its connection, and nothing else.
                std::thread::spawn(move || match tls {
                    None => drop(relay(client, server, fate)),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).unwrap();
                        drop(relay(StreamOwned::new(session, client), server, fate));
                    }
                });
            }
        });
        Self { address, authority }
    }
}

fn relay(mut client: impl Read + Write, server: SocketAddr, fate: Option<Fate>) -> Result<()> {
    let request = read_request(&mut client)?;
    if let Some(Fate::Say(answer)) = fate {
        return client.write_all(answer.as_bytes());
    }
    let mut server = Heard::new(TcpStream::connect_timeout(&server, PATIENCE)?);
    server.write_all(&request)?;
    let mut answer = [0; 4096];
    let mut passed = Vec::new();
    loop {
        let piece = match server.read(&mut answer)? {
            0 => return Ok(()),
            bytes => &answer[..bytes],
        };
        match &fate {
            None => client.write_all(piece)?,
            Some(Fate::Lose(lost)) => {
                lost.answered.0.send(()).unwrap();
                let _ = lost.let_go.1.recv();
                return Ok(());
            }
            Some(Fate::FallSilentAfter(text)) => {
                passed.extend_from_slice(piece);
                client.write_all(piece)?;
                if String::from_utf8_lossy(&passed).contains(text) {
                    // Until the client has had enough.
                    return client.read(&mut answer).map(drop);
                }
            }
            Some(Fate::Say(_)) => unreachable!("it has been said"),
        }
    }
}

/// One request with its body. It asks the server to close the connection after the answer, which is how the end is seen.
fn read_request(client: &mut impl Read) -> Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    request.truncate(request.len() - 2);
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    request.extend_from_slice(&body);
    Ok(request)
}
