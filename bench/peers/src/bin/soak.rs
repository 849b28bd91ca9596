//! A steady load for minutes or hours, and whether anything grows under it.
//!
//! `soak DIRECTORY SECONDS CSV COMMAND...` starts the server by COMMAND on a store of its own, which keeps analyses for ten seconds after
//! they have ended, so that the store is the same size throughout. Twenty clients ask, wait, list, watch and leave, twenty analyses a
//! second in all; four more make plain requests, 200,000 of them over the whole time, or 200 a second if those are more. Once a
//! second, resident memory, threads, descriptors, connections of the pool in use and queued analyses are added to the CSV; at the
//! end each gets its robust slope.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_peers::figure::{median, robust_slope, tell, verdict};
use holdfast_peers::mix::{self, Client, Plan};
use holdfast_peers::server::Server;
use serde_json::Value;

const CLIENTS: usize = 20;
/// Of each client: twenty a second in all.
const PAUSE: Duration = Duration::from_secs(1);
const READERS: usize = 4;
const REQUESTS_MIN: f64 = 200_000.0;
const REQUESTS_PER_SECOND_MIN: f64 = 200.0;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const KEPT_FOR: &str = "10s";
/// Caches fill, pools grow and the first analyses are all kept: so much of the time is no growth, and no less than half a minute
/// of it, or half of a shorter time.
const WARM_SHARE: f64 = 0.2;
const WARM_SECONDS: f64 = 30.0;
/// Slopes are fitted through the medians of so many stretches of time: 19,900 pairs, however long it takes.
const STRETCHES: usize = 200;
/// The server warns of growth by its last two minutes, a sample each five seconds, and begins after its first.
const WARNS_AFTER_SECONDS: f64 = 180.0;
/// A rise over the whole time that is more than chance and stays below what a machine of 512 MB would notice in weeks.
const RISE_TO_SCATTER_MIN: f64 = 4.0;
/// How much of the slope each half must show by itself: what grows goes on growing.
const HALF_SLOPE_MIN: f64 = 0.25;

/// What is sampled: its column, and the least rise that counts.
const COLUMNS: [(&str, f64); 5] =
    [("resident MiB", 1.0), ("threads", 1.0), ("descriptors", 4.0), ("pool in use", 1.0), ("queue", 4.0)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, seconds, csv, command @ ..] = arguments.as_slice() else {
        panic!("usage: soak DIRECTORY SECONDS CSV COMMAND...")
    };
    let seconds: f64 = seconds.parse().expect("a number of seconds");
    let mut csv = File::create(csv).expect("the CSV can be written");
    let server = Server::launch(command, Path::new(directory), &[("RETENTION_DAYS", KEPT_FOR)]);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let plan = Plan { port: server.port, clients: CLIENTS, analyses: u64::MAX, until: Some(until), pause: PAUSE };
    let rate = REQUESTS_PER_SECOND_MIN.max(REQUESTS_MIN / seconds) / READERS as f64;
    let requests = AtomicU64::new(0);
    let (analyses, (samples, warnings)) = std::thread::scope(|scope| {
        let load = scope.spawn(|| mix::run(&plan).runs.len());
        for reader in 0..READERS {
            let requests = &requests;
            scope.spawn(move || read(server.port, CLIENTS + reader, rate, until, requests));
        }
        let watched = watch(&server, until, &mut csv);
        (load.join().expect("every analysis is answered rightly"), watched)
    });
    let requests = requests.into_inner();
    println!("{seconds:.0} s, {analyses} analyses, {requests} plain requests; one line is a second");
    server.terminate();

    let warm = (samples.len() as f64 * WARM_SHARE).max(WARM_SECONDS).min(samples.len() as f64 / 2.0) as usize;
    let stretches = samples[warm..].chunks((samples.len() - warm).div_ceil(STRETCHES)).collect::<Vec<_>>();
    let mut met = true;
    for (column, (name, rise_min)) in COLUMNS.into_iter().enumerate() {
        let points: Vec<(f64, f64)> = stretches
            .iter()
            .map(|stretch| {
                let at = |index: usize| median(stretch.iter().map(|sample| sample[index]).collect());
                (at(0), at(column + 1))
            })
            .collect();
        let trend = Trend::of(&points, rise_min);
        println!(
            "{name:<14} {:.1} to {:.1}; {:+.3} an hour, {:+.2} over {:.0} s: {}",
            points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min),
            points.iter().map(|point| point.1).fold(0.0, f64::max),
            trend.per_hour,
            trend.rise,
            points[points.len() - 1].0 - points[0].0,
            if trend.is_slope { "a slope" } else { "no slope" }
        );
        tell(&format!("soak: {name}, slope"), trend.per_hour, "/h");
        met &= verdict(
            &format!("soak: {name}, rise that counts as a slope"),
            if trend.is_slope { trend.rise } else { 0.0 },
            "",
            0.0,
        );
    }
    for warning in warnings.iter().take(3) {
        eprintln!("{warning}");
    }
    let what = format!("soak: warnings of growth in {requests} plain requests");
    if seconds < WARNS_AFTER_SECONDS {
        tell(&format!("{what}, in less time than one takes"), warnings.len() as f64, "");
    } else {
        met &= verdict(&what, warnings.len() as f64, "", 0.0);
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The slope of one figure and whether it is one.
struct Trend {
    per_hour: f64,
    rise: f64,
    is_slope: bool,
}

impl Trend {
    fn of(points: &[(f64, f64)], rise_min: f64) -> Trend {
        let slope = robust_slope(points);
        let rise = slope * (points[points.len() - 1].0 - points[0].0);
        let offsets: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
        let middle = median(offsets.clone());
        let scatter = median(offsets.into_iter().map(|offset| (offset - middle).abs()).collect());
        let (first, second) = points.split_at(points.len() / 2);
        let is_slope = rise >= rise_min
            && rise >= RISE_TO_SCATTER_MIN * scatter
            && [first, second].into_iter().all(|half| robust_slope(half) >= HALF_SLOPE_MIN * slope);
        Trend { per_hour: slope * 3600.0, rise, is_slope }
    }
}

/// Samples until the end: seconds since the start, then the columns; and the warnings of growth that health gave.
fn watch(server: &Server, until: Instant, csv: &mut File) -> (Vec<[f64; 6]>, Vec<String>) {
    let mut client = Client::new(server.port, CLIENTS + READERS);
    let header = COLUMNS.map(|(name, _)| name.replace(' ', "_")).join(",");
    writeln!(csv, "seconds,{header}").expect("there is room");
    let (mut samples, mut warnings) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for number in 1.. {
        let due = begun + SAMPLE_EVERY * number;
        if due > until {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let usage = server.usage();
        let mut get = |path| -> Value {
            serde_json::from_slice(&client.insist("GET", path, &[], "").body).expect("a body of JSON")
        };
        let (pool, health) = (get("/debug/pool-status"), get("/health"));
        let number_of = |value: &Value| value.as_f64().expect("a number");
        let in_use = number_of(&pool["connections"]) - number_of(&pool["idle_connections"]);
        let queued = number_of(&health["analyses"]["queued"]);
        let seconds = begun.elapsed().as_secs_f64();
        let sample = [seconds, usage.resident_mib, usage.threads as f64, usage.descriptors as f64, in_use, queued];
        let fields = sample.map(|field| format!("{}", (field * 100.0).round() / 100.0)).join(",");
        writeln!(csv, "{fields}").expect("there is room");
        samples.push(sample);
        let texts = health["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        warnings.extend(texts.filter(|text| text.contains("grow")).map(str::to_owned));
    }
    (samples, warnings)
}

/// Plain requests at a fixed rate: what a page asks for while nobody asks anything.
fn read(port: u16, number: usize, per_second: f64, until: Instant, requests: &AtomicU64) {
    const PATHS: [&str; 6] = [
        "/health",
        "/runs?limit=20",
        "/health/memory",
        "/chat-threads",
        "/catalog",
        "/data-table?table=penguins&limit=20",
    ];
    let mut client = Client::new(port, number);
    let begun = Instant::now();
    for number in 0_u32.. {
        let due = begun + Duration::from_secs_f64(f64::from(number) / per_second);
        if due >= until {
            return;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let path = PATHS[number as usize % PATHS.len()];
        let answer = client.insist("GET", path, &[], "");
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        requests.fetch_add(1, Ordering::Relaxed);
    }
}
