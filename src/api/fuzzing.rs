//! What holds of every body of a request, whoever makes it up.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::analyze::{AnalyzeRequest, PROMPT_CHARS_MAX};
use super::feedback::{COMMENT_CHARS_MAX, FeedbackRequest, SentimentRequest};
use super::json::{self, Fields, NESTING_MAX};
use super::parameter::THREAD_ID_CHARS_MAX;
use super::problem::{FAULTS_MAX, LOC_PART_CHARS_MAX, Problem};
use crate::http::fuzzing::request_with;

const ENGINES: [&str; 2] = ["analyst", "other"];

/// A body means what `serde_json` says, nests no deeper than allowed, has every key given twice and every NUL found, up to as many
/// as are told; what a handler takes of it is what was sent, trimmed, and within the limits.
pub fn json(body: &[u8]) {
    let tree = serde_json::from_slice::<Tree>(body);
    let faults = match json::parse(body) {
        Ok((value, faults)) => {
            let tree = tree.as_ref().expect("it is JSON to others as well");
            assert!(tree.depth() <= NESTING_MAX);
            assert_eq!(value, tree.value());
            let faults = faults.as_slice();
            let count = |kind: &str| faults.iter().filter(|fault| fault.kind == kind).count();
            let (found, there) = ([count("duplicate_key"), count("nul")], [tree.keys_given_again(), tree.nuls()]);
            let all: usize = there.iter().sum();
            assert!(found == there || (all > FAULTS_MAX && found[0] <= there[0] && found[1] <= there[1]), "{found:?}");
            assert_eq!((faults.len(), found.iter().sum()), (all.min(FAULTS_MAX), faults.len()));
            let parts = || faults.iter().flat_map(|fault| &fault.loc);
            assert!(parts().all(|part| part.chars().count() <= LOC_PART_CHARS_MAX + 1));
            Some(faults.len())
        }
        Err(problem) => {
            assert_eq!(problem.status(), 400);
            assert!(!tree.is_ok_and(|tree| tree.depth() <= NESTING_MAX), "{problem:?}");
            None
        }
    };
    let analyze = |mut fields: Fields| {
        let request = AnalyzeRequest::read(&mut fields, &ENGINES);
        fields.end().map(|()| request)
    };
    if let Some((request, sent)) = read(body, faults, analyze) {
        assert_members(&sent, &["prompt", "thread_id"], &["engine"]);
        assert_eq!(Some(&*request.prompt), sent["prompt"].as_str().map(str::trim));
        assert_eq!(Some(&*request.thread_id), sent["thread_id"].as_str().map(str::trim));
        assert!((1..=PROMPT_CHARS_MAX).contains(&request.prompt.chars().count()));
        assert!((1..=THREAD_ID_CHARS_MAX).contains(&request.thread_id.chars().count()));
        assert!(request.engine.is_none_or(|engine| ENGINES.contains(&&*engine)));
    }
    if let Some((request, sent)) = read(body, faults, FeedbackRequest::read) {
        assert_members(&sent, &["run_id"], &["feedback", "comment"]);
        assert!(request.feedback.is_some() || request.comment.is_some());
        assert_eq!(request.feedback.map(f64::from), sent.get("feedback").and_then(Value::as_f64));
        assert!(request.feedback.is_none_or(|bit| bit <= 1));
        let comment = sent.get("comment").and_then(Value::as_str).map(str::trim).filter(|comment| !comment.is_empty());
        assert_eq!(request.comment.as_deref(), comment);
        assert!(comment.is_none_or(|comment| comment.chars().count() <= COMMENT_CHARS_MAX));
        assert!(sent["run_id"].as_str().is_some_and(|id| id.trim().parse() == Ok(request.run_id)));
    }
    if let Some((request, sent)) = read(body, faults, SentimentRequest::read) {
        assert_members(&sent, &["run_id", "sentiment"], &[]);
        assert_eq!(request.sentiment, sent["sentiment"].as_bool());
        assert!(sent["run_id"].as_str().is_some_and(|id| id.trim().parse() == Ok(request.run_id)));
    }
}

/// What a handler reads of the body, and the object that it is; `None` if it is refused.
fn read<T>(
    body: &[u8],
    faults: Option<usize>,
    reader: impl Fn(Fields) -> Result<T, Problem>,
) -> Option<(T, Map<String, Value>)> {
    match json::fields(&request_with(body)).and_then(reader) {
        Ok(request) => {
            assert_eq!(faults, Some(0), "faults refuse a body");
            match serde_json::from_slice(body) {
                Ok(Value::Object(sent)) => Some((request, sent)),
                other => panic!("a handler took {other:?}"),
            }
        }
        Err(problem) => {
            assert!([400, 404, 422].contains(&problem.status()), "{problem:?}");
            assert!(faults.is_some() || problem.status() == 400, "{problem:?}");
            None
        }
    }
}

fn assert_members(sent: &Map<String, Value>, required: &[&str], optional: &[&str]) {
    let given: BTreeSet<&str> = sent.keys().map(String::as_str).collect();
    assert!(required.iter().all(|name| given.contains(name)), "{given:?}");
    assert!(given.iter().all(|name| required.contains(name) || optional.contains(name)), "{given:?}");
}

/// JSON with nothing thrown away.
enum Tree {
    Leaf(Value),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    fn depth(&self) -> usize {
        match self {
            Self::Leaf(_) => 0,
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.iter().map(|(_, member)| member.depth()).max().unwrap_or(0),
        }
    }

    /// The last of a name counts.
    fn value(&self) -> Value {
        match self {
            Self::Leaf(value) => value.clone(),
            Self::Array(items) => items.iter().map(Self::value).collect(),
            Self::Object(members) => members.iter().map(|(name, member)| (name.clone(), member.value())).collect(),
        }
    }

    fn keys_given_again(&self) -> usize {
        let below = |sum: usize, tree: &Self| sum + tree.keys_given_again();
        match self {
            Self::Leaf(_) => 0,
            Self::Array(items) => items.iter().fold(0, below),
            Self::Object(members) => {
                let names: HashSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
                members.iter().map(|(_, member)| member).fold(members.len() - names.len(), below)
            }
        }
    }

    /// The strings with a NUL in them, names included.
    fn nuls(&self) -> usize {
        let has_nul = |text: &str| usize::from(text.contains('\0'));
        match self {
            Self::Leaf(value) => value.as_str().map_or(0, has_nul),
            Self::Array(items) => items.iter().map(Self::nuls).sum(),
            Self::Object(members) => members.iter().map(|(name, member)| has_nul(name) + member.nuls()).sum(),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Grower)
    }
}

struct Grower;

impl<'de> Visitor<'de> for Grower {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Number(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Tree::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(Tree::Object(all))
    }
}
