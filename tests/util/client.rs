//! A blocking HTTP client that does what it is told, on one kept connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use super::events::{Chunked, Events};
use super::secrecy::{self, Heard};
use super::{PATIENCE, wait_for};

/// One user's connection to a server; made anew when the server has closed it.
pub(crate) struct Client {
    address: SocketAddr,
    token: Option<String>,
    connection: Option<BufReader<Heard>>,
    sent: Option<Instant>,
}

/// An answer as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// In order, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// A client that sends this token, if any.
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        if let Some(token) = &token {
            secrecy::note_token(token);
        }
        Self { address, token, connection: None, sent: None }
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], &[])
    }

    pub(crate) fn delete(&mut self, path: &str) -> Response {
        self.request("DELETE", path, &[], &[])
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Response {
        self.post_with(path, &[], body)
    }

    pub(crate) fn post_with(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        self.send_post(path, headers, body);
        self.receive()
    }

    /// Sends a `POST` and leaves the answer to [`Client::receive`].
    pub(crate) fn send_post(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) {
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        self.send("POST", path, &headers, body.to_string().as_bytes());
    }

    /// Sends a request with `Host`, the token and, if there is a body, its length; reads the answer.
    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(method, path, headers, body);
        self.receive_answer_to(method)
    }

    /// The same of a server that may be gone, or go before it has answered.
    pub(crate) fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        self.sent = None;
        self.try_connection()?;
        self.send(method, path, headers, body);
        self.read_answer(method)
    }

    /// The same for a `POST` of JSON.
    pub(crate) fn try_post(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> std::io::Result<Response> {
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        self.try_request("POST", path, &headers, body.to_string().as_bytes())
    }

    /// Sends a request and leaves the answer to [`Client::receive`].
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = vec![format!("{method} {path} HTTP/1.1"), format!("Host: {}", self.address)];
        if let Some(token) = self.token.as_ref().filter(|_| !headers.iter().any(|(name, _)| *name == "Authorization")) {
            head.push(format!("Authorization: Bearer {token}"));
        }
        head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if !body.is_empty() {
            head.push(format!("Content-Length: {}", body.len()));
        }
        note(path, headers, body);
        let mut bytes = (head.join("\r\n") + "\r\n\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.send_raw(&bytes);
    }

    /// Sends exactly these bytes.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        // The server may refuse and close before it has read everything; what it said is read all the same.
        let written = self.connection().get_mut().write_all(bytes);
        self.sent = written.is_ok().then(Instant::now);
    }

    /// Watches a run's events on a connection of its own; the answer has to be a stream.
    #[track_caller]
    pub(crate) fn watch(&mut self, id: &str, after: u64) -> Events {
        let after = after.to_string();
        self.watch_with(&format!("/runs/{id}/events"), &[("Last-Event-ID", &after)])
    }

    /// The same with these headers.
    #[track_caller]
    pub(crate) fn watch_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Events {
        match self.try_watch(path, headers).expect("the server answers") {
            Ok(events) => events,
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    /// The same of a server that may be gone, which is an error, or refuse, whose answer's head is given then.
    pub(crate) fn try_watch(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<Result<Events, Response>> {
        self.hang_up();
        self.try_connection()?;
        self.send("GET", path, headers, &[]);
        let mut connection = self.connection.take().expect("something was just sent");
        let head = read_head(&mut connection)?;
        Ok(if head.status == 200 { Ok(Events::new(head, connection)) } else { Err(head) })
    }

    /// Reads the next answer.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Response {
        self.receive_answer_to("POST")
    }

    /// The connection, for whatever this client does not know; opened if need be.
    pub(crate) fn connection(&mut self) -> &mut BufReader<Heard> {
        self.try_connection().expect("the server listens")
    }

    fn try_connection(&mut self) -> std::io::Result<&mut BufReader<Heard>> {
        if self.connection.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            self.connection = Some(BufReader::new(Heard::new(stream)));
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    /// By when the last request was sent; `None` if the server was gone before.
    pub(crate) fn sent(&self) -> Option<Instant> {
        self.sent
    }

    /// Closes the connection without a word.
    pub(crate) fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Stores a run without waiting for it, and gives its id.
    #[track_caller]
    pub(crate) fn submit(&mut self, question: &Value) -> String {
        let answer = self.post_with("/analyze", &[("Prefer", "respond-async")], question);
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.run_id()
    }

    /// The run of that id as JSON.
    #[track_caller]
    pub(crate) fn run(&mut self, id: &str) -> Value {
        let answer = self.get(&format!("/runs/{id}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The run of that id once it has the status; fails when it ended otherwise.
    #[track_caller]
    pub(crate) fn wait_for_status(&mut self, id: &str, status: &str) -> Value {
        wait_for(&format!("run {id} to be {status}"), || {
            let run = self.run(id);
            let is_final = !matches!(run["status"].as_str().unwrap(), "queued" | "running" | "cancelling");
            assert!(run["status"] == status || !is_final, "the run should be {status}: {run}");
            (run["status"] == status).then_some(run)
        })
    }

    #[track_caller]
    fn receive_answer_to(&mut self, method: &str) -> Response {
        self.read_answer(method).expect("the server answers")
    }

    fn read_answer(&mut self, method: &str) -> std::io::Result<Response> {
        let answer = read_response(self.connection(), method);
        let is_over = answer.as_ref().is_ok_and(|answer| answer.header("connection") == Some("close"));
        if is_over || answer.is_err() {
            self.hang_up();
        }
        answer
    }
}

impl Response {
    /// The first value of the header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `run_id` of the body.
    #[track_caller]
    pub(crate) fn run_id(&self) -> String {
        self.json()["run_id"].as_str().unwrap_or_else(|| panic!("no run_id: {}", self.text())).to_owned()
    }
}

/// The body of a question to the built-in engine.
pub(crate) fn sql(thread_id: &str, prompt: &str) -> Value {
    json!({"thread_id": thread_id, "prompt": prompt})
}

/// Notes what of a request is not to be told.
fn note(path: &str, headers: &[(&str, &str)], body: &[u8]) {
    for (_, token) in headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
        secrecy::note_token(token);
    }
    if ["/analyze", "/feedback"].contains(&path)
        && let Ok(body) = serde_json::from_slice::<Value>(body)
    {
        ["prompt", "comment"].iter().filter_map(|field| body[field].as_str()).for_each(secrecy::note_prompt);
    }
}

fn read_head(from: &mut impl BufRead) -> std::io::Result<Response> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end_matches(['\r', '\n']) {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Response { status, headers, body: Vec::new() })
}

/// Reads the next answer to a request with this method.
pub(crate) fn read_response(from: &mut impl BufRead, method: &str) -> std::io::Result<Response> {
    let mut response = read_head(from)?;
    let status = response.status;
    if method != "HEAD" && !matches!(status, 100..=199 | 204 | 304) {
        match response.header("content-length").map(|length| length.parse().expect("a length")) {
            Some(length) => {
                response.body.resize(length, 0);
                from.read_exact(&mut response.body)?;
            }
            None if response.header("transfer-encoding") == Some("chunked") => {
                Chunked::new(from).read_to_end(&mut response.body)?;
            }
            None => drop(from.read_to_end(&mut response.body)?),
        }
    }
    Ok(response)
}
