//! The pool is replaced again and again while everybody uses it.

use rustix::process::Signal;

use super::launch;
use crate::util::health::Watch;
use crate::util::load::Load;
use crate::util::record::assert_whole;
use crate::util::{Database, Server, endurance, require_postgres, wait_until};

const RECYCLES: u64 = 100;

#[test]
fn a_hundred_hangups_replace_the_pool_and_nobody_notices() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let server = launch().heeds_hangup().on(&database).start();
    let load = Load::on(&[&server], "load", 4);
    load.wait_for_answers(8);
    let watch = Watch::over(&server);
    let of_pool = |server: &Server, name: &str| server.anonymous().get("/debug/pool-status").json()[name].clone();
    let first = of_pool(&server, "generation").as_u64().unwrap();
    let recycles = RECYCLES * u64::from(endurance());
    for n in 1..=recycles {
        server.signal(Signal::HUP);
        // Three pools; one that is being replaced takes the next hangup with it.
        wait_until("the pools to be replaced", || of_pool(&server, "recycles_total") == 3 * n);
    }
    assert_eq!(of_pool(&server, "generation"), first + recycles);
    load.wait_for_answers(8);
    assert_eq!(load.refused(), 0);
    let accepted = load.stop();
    assert_eq!(watch.end(), ["connected"]);
    assert_whole(&database, &accepted);
}
