//! One thread, written by both.

use holdfast::domain::{ChannelValue, CheckpointRef, CheckpointTuple, ListCheckpoints, PendingWrite};
use holdfast::store::CheckpointStore;
use serde_json::{Value, json};

use super::python::Python;
use super::schema::store;
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Database, Launch, Server, require_postgres, sql};

/// A server, a user whose thread `t` has run, and what LangGraph needs to find it.
struct Shared {
    python: &'static Python,
    client: Client,
    key: String,
    /// The runs' answers, oldest first.
    answers: Vec<Value>,
    _server: Server,
    // Goes after the server.
    database: Database,
}

impl Shared {
    /// A thread with these questions, unless something is missing here.
    #[track_caller]
    fn ask(prompts: &[&str]) -> Option<Self> {
        let python = require_postgres().then(Python::require).flatten()?;
        let database = Database::new();
        let server = Launch::holdfast().on(&database).start();
        let mut client = server.client("ann@example.org");
        let answers = prompts.iter().map(|prompt| answered(&mut client, prompt)).collect();
        let key = checkpoints(&mut client)["checkpoint_thread_id"].as_str().unwrap().to_owned();
        Some(Self { python, client, key, answers, _server: server, database })
    }

    fn call(&self, verb: &str, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = [&*self.key].into_iter().chain(arguments.iter().copied()).collect();
        self.python.call(verb, &self.database, &arguments)
    }

    fn stored(&self) -> Vec<CheckpointTuple> {
        store(&self.database).list(&ListCheckpoints { thread_id: self.key.clone(), ..Default::default() }).unwrap()
    }
}

#[track_caller]
fn answered(client: &mut Client, prompt: &str) -> Value {
    let answer = client.post("/analyze", &sql("t", prompt));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// What Holdfast tells of the thread's checkpoints.
fn checkpoints(client: &mut Client) -> Value {
    client.get("/debug/chat/t/checkpoints").json()
}

/// The same of each: id, parent, step, source.
fn told(checkpoints: &Value) -> Vec<[&Value; 4]> {
    let fields = ["checkpoint_id", "parent_checkpoint_id", "step", "source"];
    checkpoints["checkpoints"].as_array().unwrap().iter().map(|found| fields.map(|field| &found[field])).collect()
}

/// What LangGraph says of the same.
fn listed(found: &Value) -> Vec<[&Value; 4]> {
    found
        .as_array()
        .unwrap()
        .iter()
        .map(|found| {
            let (config, parent, metadata) = (&found["config"], &found["parent"], &found["metadata"]);
            [&config["checkpoint_id"], &parent["checkpoint_id"], &metadata["step"], &metadata["source"]]
        })
        .collect()
}

#[test]
fn langgraph_reads_a_thread_of_holdfast() {
    let prompts = ["SELECT 'a' || char(0) || 'ä' AS text, 1e300 AS big", "penguins by species"];
    let Some(mut shared) = Shared::ask(&prompts) else { return };
    let held = checkpoints(&mut shared.client);
    let found = shared.call("listed", &[]);
    assert_eq!(listed(&found), told(&held), "the same checkpoints with the same parents, newest first");
    assert_eq!(shared.call("read", &[]), found[0], "the latest by itself");
    assert_eq!(shared.call("read", &[found[2]["config"]["checkpoint_id"].as_str().unwrap()]), found[2]);

    for (checkpoint, answer) in [(&found[0], &shared.answers[1]), (&found[2], &shared.answers[0])] {
        let values = &checkpoint["checkpoint"]["channel_values"];
        for (channel, field) in [("prompt", "prompt"), ("sql", "sql"), ("result", "result")] {
            assert_eq!(values[channel], answer[field], "{channel}");
        }
        assert_eq!(checkpoint["metadata"]["run_id"], answer["run_id"]);
    }
    assert_eq!(found[0]["checkpoint"]["channel_values"]["tables"], json!(["penguins"]), "an array is a list");
    for checkpoint in found.as_array().unwrap() {
        for version in checkpoint["checkpoint"]["channel_versions"].as_object().unwrap().values() {
            let [number, fraction] = version.as_str().unwrap().split_once('.').map(<[&str; 2]>::from).unwrap();
            assert_eq!((number.len(), fraction.len()), (32, 18), "{version} is not in LangGraph's format");
            assert!(number.parse::<u64>().is_ok() && fraction.parse::<f64>().is_ok_and(|fraction| fraction < 1.0));
        }
    }

    let ids = |found: &Value| -> Vec<Value> {
        found.as_array().unwrap().iter().map(|found| found["config"]["checkpoint_id"].clone()).collect()
    };
    let all = ids(&found);
    assert_eq!(ids(&shared.call("listed", &[r#"{"step": 1, "source": "loop"}"#])), [all[1].clone(), all[3].clone()]);
    assert_eq!(ids(&shared.call("listed", &["{}", all[1].as_str().unwrap(), "1"])), all[2..3]);
}

#[test]
fn a_text_that_jsonb_cannot_hold_reaches_langgraph() {
    let Some(python) = require_postgres().then(Python::require).flatten() else { return };
    let database = Database::new();
    let server = Launch::drill().on(&database).start();
    let mut ann = server.client("ann@example.org");
    let drill = Drill::new("nul", 2).on(1, Act::SetNul);
    let answer = ann.post("/analyze", &drill.question("t"));
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(drill.answer())), "{answer:?}");
    let held = checkpoints(&mut ann);
    let found = python.call("read", &database, &[held["checkpoint_thread_id"].as_str().unwrap()]);
    assert_eq!(found["checkpoint"]["channel_values"]["nul"], "a\0b");
    assert_eq!(found["checkpoint"]["channel_values"]["done"], 2);
}

#[test]
fn a_write_of_holdfast_is_pending_in_langgraph() {
    let Some(shared) = Shared::ask(&["SELECT 1"]) else { return };
    let write = |task_id: &str, idx, value: Value| PendingWrite {
        task_id: task_id.into(),
        idx,
        channel: "partial".into(),
        value: ChannelValue::json(&value),
        task_path: String::new(),
    };
    let latest = CheckpointRef { thread_id: shared.key.clone(), ns: String::new(), id: None };
    let writes = [write("a", 0, json!({"rows": [1, null]})), write("a", 1, json!("ä")), write("b", 0, json!(0.5))];
    store(&shared.database).put_writes(&latest, &writes).unwrap();
    let expected = json!([["a", "partial", {"rows": [1, null]}], ["a", "partial", "ä"], ["b", "partial", 0.5]]);
    assert_eq!(shared.call("read", &[])["pending_writes"], expected);
}

/// Goal: neither writer loses what the other one stored, and each goes on after the other.
#[test]
fn langgraph_adds_to_a_thread_and_holdfast_goes_on_after_it() {
    let Some(mut shared) = Shared::ask(&["SELECT 1"]) else { return };
    let before = shared.stored();
    let added = shared.call("extend", &[]);
    let after = shared.stored();
    assert_eq!(after[1..], before, "what was there is as it was");
    let CheckpointTuple { checkpoint, values, pending_writes } = &after[0];
    assert_eq!(
        (&json!(checkpoint.id), &checkpoint.parent_id),
        (&added["checkpoint_id"], &Some(before[0].checkpoint.id.clone()))
    );
    let metadata = &checkpoint.metadata;
    assert_eq!((&metadata["source"], &metadata["step"]), (&json!("update"), &json!(7)));
    let inline = &checkpoint.body["channel_values"];
    assert_eq!((&inline["note"], &inline["result"]), (&json!("from Python"), &shared.answers[0]["result"]));
    assert_eq!(values["n"].kind, "msgpack", "{values:?}");
    let pending: Vec<_> = pending_writes.iter().map(|write| (&*write.channel, write.idx, &*write.task_path)).collect();
    assert_eq!(pending, [("n", 0, "~path"), ("note", 1, "~path")]);
    assert!(pending_writes.iter().all(|write| write.task_id == added["task_id"]));
    assert_eq!(
        store(&shared.database)
            .get_tuple(&CheckpointRef { thread_id: shared.key.clone(), ns: String::new(), id: None })
            .unwrap()
            .as_ref(),
        after.first()
    );

    let versions = |tuple: &CheckpointTuple| -> Vec<String> {
        let versions = tuple.checkpoint.body["channel_versions"].as_object().unwrap();
        versions.values().map(|version| version.as_str().unwrap().to_owned()).collect()
    };
    answered(&mut shared.client, "SELECT 2");
    let last = shared.stored();
    assert_eq!(last.len(), after.len() + 2);
    assert_eq!(last[2..], after);
    assert_eq!(json!(last[1].checkpoint.parent_id), added["checkpoint_id"], "the parent is LangGraph's");
    let newest = versions(&after[0]).into_iter().max().unwrap();
    assert!(versions(&last[1]).iter().all(|version| *version > newest), "no version is used twice");
    let held = checkpoints(&mut shared.client);
    assert_eq!(listed(&shared.call("listed", &[])), told(&held), "both see the whole thread");
    assert_eq!(held["total_checkpoints"], 5);
}

#[test]
fn a_graph_of_langgraph_goes_on_with_a_thread_of_holdfast() {
    let Some(mut shared) = Shared::ask(&["SELECT 6 * 7"]) else { return };
    let result = shared.answers[0]["result"].as_str().unwrap().to_owned();
    let run_id = shared.answers[0]["run_id"].clone();
    let seen = shared.call("go_on", &[]);
    let found = &seen["found"];
    assert_eq!((&found["values"]["result"], &found["values"]["prompt"]), (&json!(result), &json!("SELECT 6 * 7")));
    assert_eq!((&found["next"], &found["metadata"]["run_id"]), (&json!([]), &run_id), "there is nothing to do");
    assert_eq!(seen["history"], json!([2, 8]));
    assert_eq!(seen["resumed"]["seen"], json!(["updated", "asked"]), "the update stood for one node, the other ran");
    let invoked = &seen["invoked"];
    assert_eq!(invoked["result"], json!(format!("{result} Indeed. Indeed.")));
    assert_eq!(invoked["seen"], json!(["updated", "asked", format!("{result} Indeed."), "asked"]));

    answered(&mut shared.client, "SELECT 2");
    let stored = shared.stored();
    assert_eq!(json!(stored[1].checkpoint.parent_id), seen["latest"], "Holdfast goes on after the graph");
    assert_eq!(stored.len(), 10);
    let deleted = shared.client.delete("/chat/t").json();
    assert_eq!(deleted["deleted"]["checkpoints"], 10, "a thread is deleted with what others added to it");
    assert_eq!(shared.call("listed", &[]), json!([]));
}

/// Goal: what the page for users tells them to type works. Each of its programs is run as it stands there.
#[test]
fn the_programs_of_the_page_on_langgraph_run() {
    let Some(shared) = Shared::ask(&["SELECT 1", "SELECT 6 * 7 AS answer"]) else { return };
    let page = include_str!("../../docs/langgraph.md");
    let programs: Vec<&str> = page.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [read, graph] = programs[..] else { panic!("{} programs", programs.len()) };
    let variables = [("DATABASE_URL", &*shared.database.url()), ("CHECKPOINT_THREAD_ID", &*shared.key)];
    let result = shared.answers[1]["result"].as_str().unwrap();
    let run_ids = shared.answers.iter().rev().map(|answer| answer["run_id"].as_str().unwrap());
    let steps: String = run_ids.flat_map(|id| [format!("{id} step 2\n"), format!("{id} step 1\n")]).collect();
    assert_eq!(shared.python.run(read, &variables), format!("{result}\n{steps}"));
    assert_eq!(shared.python.run(graph, &variables), format!("{result}\n{}\n", result.to_uppercase()));
    for pin in include_str!("requirements.txt").lines() {
        let (package, version) = pin.split_once("==").unwrap();
        let package = package.split('[').next().unwrap();
        assert!(page.contains(&format!("{package} {version}")), "the page names what was tried: {pin}");
    }
}
