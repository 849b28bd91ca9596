//! Who is let in: route, token and rate are decided before anything is done, and who comes too often waits for its turn.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Api;
use super::call::Call;
use super::envelope::{self, Envelope};
use super::problem::Problem;
use super::routes::{Lane, Numbered, Route};
use super::waiting::{Handling, Task, Way};
use crate::event;
use crate::http::{BadEncoding, Found, Method, Params, Parked, Peer, Request, Responder, Response};
use crate::limits::forwarded::{address_behind, client_address};
use crate::limits::{Client, Manner, Permit, Place};

/// A request that is let in, and when.
struct Admission {
    route: &'static Route,
    params: Params,
    /// Empty on the open endpoints.
    user: String,
    delay: Option<Delay>,
}

/// How long a request has to wait, and where.
struct Delay {
    wait: Duration,
    permit: Permit,
}

/// A request that came in, and with it everything that its answer needs but the way back.
struct Arrival {
    api: Arc<Api>,
    request: Request,
    address: IpAddr,
    envelope: Envelope,
    route: &'static Route,
    params: Params,
    user: String,
}

/// A request that waits for its turn.
pub(super) struct Turn {
    arrival: Arrival,
    way: Parked,
}

/// Takes a request as it came in: answers it, hands it on or has it wait.
pub(super) fn take(api: &Arc<Api>, mut request: Request, responder: Responder) {
    let address = api.address_of(&request);
    let mut envelope = Envelope::of(&request, &api.origins);
    if *request.method() == Method::Options {
        let answer = match api.options(&request, address, &mut envelope) {
            Ok(response) => envelope.seal(api, response),
            Err(problem) => envelope.seal_problem(api, problem),
        };
        return responder.send(answer);
    }
    let Admission { route, params, user, delay } = match api.admit(&request, address, &mut envelope) {
        Ok(admission) => admission,
        Err(problem) => return responder.send(envelope.seal_problem(api, problem)),
    };
    if route.document.request.is_none() {
        // Nobody reads it, and a request may wait for long.
        request.body = Vec::new();
    }
    let arrival = Arrival { api: Arc::clone(api), request, address, envelope, route, params, user };
    let Some(Delay { wait, permit }) = delay else { return arrival.go_on(responder) };
    // The wait is short, and who has sent its request and closes its sending side still wants the answer.
    let turn = Turn { arrival, way: responder.park_briefly() };
    if let Err(turn) = api.turnstile.enter(permit, Instant::now() + wait, turn) {
        turn.end();
    }
}

impl Api {
    /// Where a request comes from, as far as that can be known: by a Unix socket, from this machine.
    fn address_of(&self, request: &Request) -> IpAddr {
        let proxies = &self.trusted_proxies;
        let peer = match request.peer {
            Peer::Net(peer) => peer.ip().to_canonical(),
            Peer::Local => Ipv4Addr::LOCALHOST.into(),
        };
        if proxies.is_empty() {
            return peer;
        }
        let standard: Vec<&str> = request.header_values("forwarded").collect();
        let custom: Vec<&str> = request.header_values("x-forwarded-for").collect();
        match request.peer {
            Peer::Net(_) => client_address(peer, &standard, &custom, proxies),
            Peer::Local if proxies.contain_local() => address_behind(peer, &standard, &custom, proxies),
            Peer::Local => peer,
        }
    }

    /// Answers `OPTIONS`, at once. A preflight is not counted: its answer is always the same, and of a refusal a browser would tell its
    /// page nothing but that it may not call.
    fn options(&self, request: &Request, address: IpAddr, envelope: &mut Envelope) -> Result<Response, Problem> {
        if envelope::is_preflight(request) {
            return Ok(envelope::preflight());
        }
        let found = self.router.find(request.method(), request.path());
        if is_limited(&found) {
            self.count(Client::Address(address), None, envelope)?;
        }
        envelope::options(&found, request.path())
    }

    /// Route, token and rate. What is refused for another reason is counted like everything else, but does not wait: who tries
    /// tokens or paths shall hold no memory.
    fn admit(&self, request: &Request, address: IpAddr, envelope: &mut Envelope) -> Result<Admission, Problem> {
        let stranger = Client::Address(address);
        let bytes = request.body.len();
        let found = self.router.find(request.method(), request.path());
        let is_limited = is_limited(&found);
        let (route, params) = match found {
            Ok(Found::Route(found, params)) => {
                envelope.route = Some(*found);
                (found.route, params)
            }
            refused => {
                if is_limited {
                    self.count(stranger, None, envelope)?;
                }
                return Err(match refused {
                    Ok(Found::MethodNotAllowed(_, allowed)) => {
                        let detail = format!("This path understands {allowed}.");
                        Problem::new(405, detail).with_header("Allow", allowed)
                    }
                    Ok(_) => Problem::not_found("path"),
                    Err(error) => Problem::new(400, format!("The path cannot be read: {error}.")),
                });
            }
        };
        if !route.token {
            let delay = if is_limited { self.count(stranger, Some(bytes), envelope)? } else { None };
            return Ok(Admission { route, params, user: String::new(), delay });
        }
        envelope.is_private = true;
        let headers: Vec<&str> = request.header_values("authorization").collect();
        match self.verifier.verify(&headers) {
            Ok(principal) => {
                let user = principal.identity().to_owned();
                if tracing::enabled!(tracing::Level::DEBUG) {
                    envelope.user = Some(user.clone());
                }
                let delay = self.count(Client::User(&user), Some(bytes), envelope)?;
                Ok(Admission { route, params, user, delay })
            }
            Err(refused) => {
                let reason = refused.reason();
                self.metrics.tokens_refused.get_or_create(&[("reason", reason)]).inc();
                if let Err(too_often) = self.count(stranger, None, envelope) {
                    self.refusals_logged.withhold();
                    return Err(too_often);
                }
                if let Some(unlogged) = self.refusals_logged.spend() {
                    tracing::info!(
                        event = event::TOKEN_REFUSED,
                        reason,
                        path = route.path,
                        %address,
                        request_id = envelope.request_id,
                        unlogged
                    );
                }
                Err(refused.into())
            }
        }
    }

    /// Counts a request, and says whether it has to wait, which it may if it says how much memory it would hold meanwhile. Its
    /// place is taken before its time is, which nobody could give back.
    fn count(
        &self,
        client: Client<'_>,
        bytes: Option<usize>,
        envelope: &mut Envelope,
    ) -> Result<Option<Delay>, Problem> {
        let place = match client {
            Client::User(_) => Place::User,
            Client::Address(_) => Place::Address,
        };
        let mut verdict = self.limiter.check(client, Manner::AtOnce);
        let mut permit = None;
        if verdict.is_err() {
            permit = bytes.and_then(|bytes| self.turnstile.admit(place, bytes));
        }
        if permit.is_some() {
            verdict = self.limiter.check(client, Manner::OrLater);
        }
        match verdict {
            Ok(pass) => {
                envelope.standing = Some(pass.standing);
                Ok(permit.filter(|_| !pass.wait.is_zero()).map(|permit| Delay { wait: pass.wait, permit }))
            }
            Err(retry) => {
                envelope.standing = Some(retry.standing());
                self.metrics.rate_limit_refused.get_or_create(&[("known", known(place))]).inc();
                Err(Problem::too_often(retry.seconds))
            }
        }
    }
}

/// Whether a request is counted: its path's route says so, whatever the method. What has no route is.
fn is_limited(found: &Result<Found<'_, Numbered>, BadEncoding>) -> bool {
    match found {
        Ok(Found::Route(found, _) | Found::MethodNotAllowed(found, _)) => found.route.limited,
        Ok(Found::NotFound) | Err(_) => true,
    }
}

/// How a client is known, for the counters.
fn known(place: Place) -> &'static str {
    match place {
        Place::User => "user",
        Place::Address => "address",
    }
}

impl Arrival {
    /// Does what is asked, or has it done.
    fn go_on(self, responder: Responder) {
        let Arrival { api, request, address, envelope, route, params, user } = self;
        let task = Task::Handle(Box::new(Handling {
            api: Arc::clone(&api),
            route,
            call: Call::new(route, request, params, user, address),
            envelope,
            way: Way::Direct(responder),
            is_last_try: false,
        }));
        match route.lane {
            Lane::Here => task.run(),
            // Nobody waits in a queue for a store that is not there.
            Lane::Store if api.probes.database().is_away() => task.refuse(),
            Lane::Store | Lane::Data => {
                if let Err(task) = api.lane.submit(task) {
                    task.refuse();
                }
            }
        }
    }
}

impl Turn {
    /// Lets the request in whose time has come, if its client is still there.
    pub(super) fn go_on(self) {
        if let Some(responder) = self.way.resume() {
            let place = if self.arrival.user.is_empty() { Place::Address } else { Place::User };
            self.arrival.api.metrics.rate_limit_delayed.get_or_create(&[("known", known(place))]).inc();
            self.arrival.go_on(responder);
        }
    }

    /// Whether its client has left.
    pub(super) fn is_gone(&self) -> bool {
        self.way.is_gone()
    }

    /// Ends the waiting because nobody waits any more: lets the request in where there is a successor, during whose predecessor's drain
    /// nobody is refused, and refuses it otherwise. Its time has been taken, so who asks too often is let in no more often than ever.
    pub(super) fn end(self) {
        if self.arrival.api.has_successor { self.go_on() } else { self.refuse() }
    }

    /// Answers that the server is shutting down.
    fn refuse(self) {
        let Turn { arrival: Arrival { api, envelope, .. }, way } = self;
        way.send(envelope.seal_problem(&api, Problem::draining(None)));
    }
}
