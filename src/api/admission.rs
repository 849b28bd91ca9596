//! Who is let in: route, token and rate are decided before anything is done, and who comes too often waits for its turn.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Api;
use super::call::Call;
use super::envelope::{self, Envelope};
use super::problem::Problem;
use super::routes::{Lane, Route};
use super::waiting::{Handling, Task, Way};
use crate::event;
use crate::http::{Found, Method, Params, Parked, Request, Responder};
use crate::limits::forwarded::client_address;
use crate::limits::{Client, Manner, NotWaiting, Place};

/// What is asked by a request that is let in.
enum Asked {
    Route {
        route: &'static Route,
        params: Params,
        /// Empty on the open endpoints.
        user: String,
    },
    /// What a path understands, or whether a page may call.
    Options,
}

/// A request that is let in, and when.
struct Admission {
    asked: Asked,
    wait: Duration,
    place: Place,
}

/// A request that came in, and with it everything that its answer needs but the way back.
struct Arrival {
    api: Arc<Api>,
    request: Request,
    address: IpAddr,
    envelope: Envelope,
    asked: Asked,
}

/// A request that waits for its turn.
pub(super) struct Turn {
    arrival: Arrival,
    way: Parked,
}

/// Takes a request as it came in: answers it, hands it on or has it wait.
pub(super) fn take(api: &Arc<Api>, request: Request, responder: Responder) {
    let address = api.address_of(&request);
    let mut envelope = Envelope::of(&request, &api.origins);
    let Admission { asked, wait, place } = match api.admit(&request, address, &mut envelope) {
        Ok(admission) => admission,
        Err(problem) => return responder.send(envelope.seal_problem(api, problem)),
    };
    let bytes = request.body.len();
    let arrival = Arrival { api: Arc::clone(api), request, address, envelope, asked };
    if wait.is_zero() {
        return arrival.go_on(responder);
    }
    let turn = Turn { arrival, way: responder.park() };
    match api.turnstile.enter(place, bytes, Instant::now() + wait, turn) {
        Ok(()) => {}
        Err(NotWaiting::Closed(turn)) => turn.refuse(),
        // Somebody else was quicker to take the last place.
        Err(NotWaiting::Full(turn)) => {
            let problem = api.too_often(place, wait.as_secs() + 1);
            turn.answer(problem);
        }
    }
}

impl Api {
    /// Where a request comes from, as far as that can be known.
    fn address_of(&self, request: &Request) -> IpAddr {
        let peer = request.peer.ip().to_canonical();
        if self.trusted_proxies.is_empty() {
            return peer;
        }
        let standard: Vec<&str> = request.header_values("forwarded").collect();
        let custom: Vec<&str> = request.header_values("x-forwarded-for").collect();
        client_address(peer, &standard, &custom, &self.trusted_proxies)
    }

    /// Route, token and rate. What is refused for another reason is counted like everything else, but does not wait: who tries
    /// tokens or paths shall hold no memory.
    fn admit(&self, request: &Request, address: IpAddr, envelope: &mut Envelope) -> Result<Admission, Problem> {
        let stranger = Client::Address(address);
        let bytes = request.body.len();
        let admitted = |asked, wait, place| Ok(Admission { asked, wait, place });
        if *request.method() == Method::Options {
            let wait = self.count(stranger, bytes, envelope::is_preflight(request), envelope)?;
            return admitted(Asked::Options, wait, Place::Address);
        }
        let (route, params) = match self.router.find(request.method(), request.path()) {
            Ok(Found::Route(route, params)) => (*route, params),
            Ok(Found::MethodNotAllowed(allowed)) => {
                self.count(stranger, bytes, false, envelope)?;
                let detail = format!("This path understands {allowed}.");
                return Err(Problem::new(405, detail).with_header("Allow", allowed));
            }
            Ok(Found::NotFound) => {
                self.count(stranger, bytes, false, envelope)?;
                return Err(Problem::not_found("path"));
            }
            Err(error) => {
                self.count(stranger, bytes, false, envelope)?;
                return Err(Problem::new(400, format!("The path cannot be read: {error}.")));
            }
        };
        if !route.token {
            let wait = if route.limited { self.count(stranger, bytes, true, envelope)? } else { Duration::ZERO };
            return admitted(Asked::Route { route, params, user: String::new() }, wait, Place::Address);
        }
        envelope.is_private = true;
        let headers: Vec<&str> = request.header_values("authorization").collect();
        match self.verifier.verify(&headers) {
            Ok(principal) => {
                let user = principal.identity().to_owned();
                let wait = self.count(Client::User(&user), bytes, true, envelope)?;
                admitted(Asked::Route { route, params, user }, wait, Place::User)
            }
            Err(refused) => {
                let reason = refused.reason();
                self.metrics.tokens_refused.get_or_create(&[("reason", reason)]).inc();
                self.count(stranger, bytes, false, envelope)?;
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

    /// Counts a request that holds so many bytes, and says how long it has to wait.
    fn count(
        &self,
        client: Client<'_>,
        bytes: usize,
        may_wait: bool,
        envelope: &mut Envelope,
    ) -> Result<Duration, Problem> {
        let place = match client {
            Client::User(_) => Place::User,
            Client::Address(_) => Place::Address,
        };
        let waits = may_wait && self.turnstile.has_room(place, bytes);
        match self.limiter.check(client, if waits { Manner::OrLater } else { Manner::AtOnce }) {
            Ok(pass) => {
                envelope.standing = Some(pass.standing);
                Ok(pass.wait)
            }
            Err(retry) => {
                envelope.standing = Some(retry.standing());
                Err(self.too_often(place, retry.seconds))
            }
        }
    }

    fn too_often(&self, place: Place, seconds: u64) -> Problem {
        self.metrics.rate_limit_refused.get_or_create(&[("known", known(place))]).inc();
        Problem::too_often(seconds)
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
        let Arrival { api, request, address, envelope, asked } = self;
        let (route, params, user) = match asked {
            Asked::Route { route, params, user } => (route, params, user),
            Asked::Options => {
                let answer = match envelope::options(&request, &api.router) {
                    Ok(response) => envelope.seal(&api, response),
                    Err(problem) => envelope.seal_problem(&api, problem),
                };
                return responder.send(answer);
            }
        };
        let task = Task::Handle(Box::new(Handling {
            api: Arc::clone(&api),
            route,
            call: Call::new(route, request, params, user, address),
            envelope,
            way: Way::Direct(responder),
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
            let place = match &self.arrival.asked {
                Asked::Route { user, .. } if !user.is_empty() => Place::User,
                Asked::Route { .. } | Asked::Options => Place::Address,
            };
            self.arrival.api.metrics.rate_limit_delayed.get_or_create(&[("known", known(place))]).inc();
            self.arrival.go_on(responder);
        }
    }

    /// Whether its client has left.
    pub(super) fn is_gone(&self) -> bool {
        self.way.is_gone()
    }

    /// Answers that the server is shutting down.
    pub(super) fn refuse(self) {
        self.answer(Problem::draining(None));
    }

    fn answer(self, problem: Problem) {
        let Turn { arrival: Arrival { api, envelope, .. }, way } = self;
        way.send(envelope.seal_problem(&api, problem));
    }
}
