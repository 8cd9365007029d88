//! The registry of actions and the errors that they return.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::decimal::unify;
use crate::problem::{Problem, pointer};

/// The request member that names the action.
const ACTION: &str = "action";

/// The name of the action that every registry has.
const HELP: &str = "help";

/// The error text of `serde_json` for a number that does not fit its type.
const INVALID_NUMBER: &str = "invalid number";

/// Its error text, at the first key, for an object where a [`Number`](serde_json::Number) belongs.
const NO_NUMBER_KEY: &str = "expected field with custom name";

type Handler = Box<dyn Fn(Value) -> Result<Vec<u8>, Problem> + Send + Sync>;

/// The registry of actions that clients can call by name.
///
/// Every registry has the action `help`, which returns an object that maps each name to its help
/// text.
pub struct Actions {
    registered: BTreeMap<String, Action>,
}

struct Action {
    help: String,
    handler: Handler,
}

impl Actions {
    /// Creates a registry that holds only the action `help`.
    #[must_use]
    pub fn new() -> Self {
        let actions = Self {
            registered: BTreeMap::new(),
        };
        // `help` needs the whole registry, so `call` handles it and never runs this handler.
        actions.insert(
            HELP,
            "lists all actions and what they do",
            Box::new(|_| Ok(Vec::new())),
        )
    }

    /// Adds an action called `name`. Its parameters are all members of the request except `action`.
    /// For an action without parameters, use [`IgnoredAny`](serde::de::IgnoredAny). The handler
    /// runs on the thread of the event loop, so it must not block.
    ///
    /// A handler that takes a [`Value`] gets every number exactly as it is written in the request.
    /// A [`Number`](serde_json::Number) within another type has the exact value, and an `f64` is
    /// the nearest one. An integer type rejects a number that is not written as an integer or does
    /// not fit.
    ///
    /// # Panics
    /// Panics if there is already an action of that name.
    #[must_use]
    pub fn register<P, R, H>(self, name: &str, help: &str, handler: H) -> Self
    where
        P: DeserializeOwned + 'static,
        R: Serialize,
        H: Fn(P) -> Result<R, ActionError> + Send + Sync + 'static,
    {
        let untyped = move |parameters: Value| {
            let parameters = typed(parameters)?;
            encode(&handler(parameters).map_err(|error| error.0)?)
        };

        self.insert(name, help, Box::new(untyped))
    }

    fn insert(mut self, name: &str, help: &str, handler: Handler) -> Self {
        let help = help.to_owned();
        let earlier = self
            .registered
            .insert(name.to_owned(), Action { help, handler });
        assert!(earlier.is_none(), "there is already an action {name:?}");
        self
    }

    /// Calls the action that `request` names, and returns its result as JSON.
    pub(crate) fn call(&self, request: Value) -> Result<Vec<u8>, Problem> {
        let Value::Object(mut parameters) = request else {
            let message = "expected an object: {\"action\": \"NAME\", ...}";
            return Err(Problem::of_value("not_an_object", message, String::new()));
        };

        let name = name(&mut parameters)?;
        if name == HELP {
            return encode(&self.help());
        }

        let Some(action) = self.registered.get(&name) else {
            let message = format!("no action {name:?}; the action help lists all actions");
            return Err(Problem::of_value("unknown_action", message, at_action()));
        };
        (action.handler)(Value::Object(parameters))
    }

    fn help(&self) -> BTreeMap<&str, &str> {
        let texts = self.registered.iter();
        texts
            .map(|(name, action)| (name.as_str(), action.help.as_str()))
            .collect()
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.help()).finish()
    }
}

/// The error of an action. The client receives it, and the connection stays open.
#[derive(Debug)]
pub struct ActionError(Problem);

impl ActionError {
    /// Creates an error with the code `failed` and a message for people.
    #[must_use]
    pub fn new(message: impl fmt::Display) -> Self {
        Self(Problem::of_value("failed", message, String::new()))
    }

    /// Sets the code, which is meant for programs: lower case, with words joined by `_`.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Sets the parameter that the error is about, as a JSON pointer such as `/numbers/0`.
    #[must_use]
    pub fn at(self, pointer: &str) -> Self {
        Self(self.0.at(pointer.to_owned()))
    }
}

/// Converts the members of a request into the parameters of an action.
fn typed<P: DeserializeOwned + 'static>(parameters: Value) -> Result<P, Problem> {
    let parameters: Box<dyn Any> = Box::new(parameters);
    let parameters = match parameters.downcast::<P>() {
        Ok(parameters) => return Ok(*parameters),
        Err(parameters) => parameters.downcast::<Value>(),
    };

    let mut parameters = parameters.map(|it| *it).unwrap_or_default();
    unify(&mut parameters);
    serde_path_to_error::deserialize(&parameters).map_err(|error| {
        let mut at = pointer(error.path());
        let mut message = error.inner().to_string();
        match parameters.pointer(&at) {
            // The parser's message does not contain the number.
            Some(Value::Number(number)) if message == INVALID_NUMBER => {
                message =
                    format!("{number} is not accepted here: wrong kind of number, or out of range");
            }
            // It took the object for a number in a form of its own.
            _ if message == NO_NUMBER_KEY => {
                at.truncate(at.rfind('/').unwrap_or(0));
                message = "invalid type: map, expected a JSON number".to_owned();
            }
            _ => {}
        }
        Problem::of_value("wrong_type", message, at)
    })
}

/// Removes the action's name from the request and returns it.
fn name(parameters: &mut Map<String, Value>) -> Result<String, Problem> {
    match parameters.remove(ACTION) {
        Some(Value::String(name)) => Ok(name),
        Some(_) => {
            let message = "the name of an action must be a string";
            Err(Problem::of_value("wrong_type", message, at_action()))
        }
        None => {
            let message = "expected a name: {\"action\": \"NAME\", ...}";
            Err(Problem::of_value("missing_action", message, String::new()))
        }
    }
}

fn at_action() -> String {
    format!("/{ACTION}")
}

fn encode(result: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(result).map_err(|error| Problem::of_value("failed", error, String::new()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::IgnoredAny;
    use serde_json::{Number, json};

    use super::*;

    #[derive(Deserialize)]
    struct Place {
        rows: Vec<Row>,
    }

    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "a/b~c")]
        number: u8,
    }

    /// Several kinds of values, which serde distinguishes in more than one way.
    #[derive(Debug, Deserialize, Serialize)]
    struct Kinds {
        either: Either,
        #[serde(flatten)]
        others: BTreeMap<String, f64>,
    }

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(untagged)]
    enum Either {
        Whole(i64),
        Float(f64),
        Text(String),
    }

    fn actions() -> Actions {
        Actions::new()
            .register("kinds", "kinds of values", |kinds: Kinds| Ok(kinds))
            .register("value", "any value", |all: Value| Ok(all))
            .register("first", "the first number", |Place { rows }| {
                let first = rows.first().map(|row| row.number);
                first.ok_or_else(|| ActionError::new("no rows").with_code("empty").at("/rows"))
            })
            .register("nothing", "no parameters", |_: IgnoredAny| Ok(()))
    }

    #[track_caller]
    fn refused(request: Value) -> Value {
        let problem = actions().call(request).unwrap_err();
        serde_json::to_value(problem).unwrap()
    }

    #[test]
    fn results_are_typed() {
        let request = json!({"action": "first", "rows": [{"a/b~c": 7}], "unknown": 1});
        assert_eq!(actions().call(request).unwrap(), b"7");
        let request = json!({"action": "nothing"});
        assert_eq!(actions().call(request).unwrap(), b"null");
    }

    #[track_caller]
    fn result(request: &[u8]) -> String {
        let request = crate::parse::parse(request).unwrap();
        let result = actions().call(request).unwrap();
        String::from_utf8(result).unwrap()
    }

    #[test]
    fn a_value_has_its_numbers_as_they_were_written() {
        let numbers = "[1.10,1e2,1E2,-0,-0.0,0.10e-3,100000000000000000000000,1e-400]";
        let request = format!("{{\"action\":\"value\",\"a\":{numbers}}}");
        assert_eq!(result(request.as_bytes()), format!("{{\"a\":{numbers}}}"));
    }

    #[test]
    fn numbers_are_recognised_by_types_that_take_several_kinds() {
        for (number, expected) in [
            ("7", "7"),
            ("1.10", "1.1"),
            ("1e2", "100.0"),
            ("-0", "-0.0"),
        ] {
            let request = format!("{{\"action\":\"kinds\",\"either\":{number},\"x\":2.50}}");
            let expected = format!("{{\"either\":{expected},\"x\":2.5}}");
            assert_eq!(result(request.as_bytes()), expected);
        }
    }

    #[test]
    fn help_lists_all_actions() {
        let help = actions().call(json!({"action": "help"})).unwrap();
        let expected = json!({
            "first": "the first number",
            "help": "lists all actions and what they do",
            "kinds": "kinds of values",
            "nothing": "no parameters",
            "value": "any value",
        });
        assert_eq!(serde_json::from_slice::<Value>(&help).unwrap(), expected);
    }

    #[test]
    fn a_wrong_parameter_is_pointed_at() {
        let request = json!({"action": "first", "rows": [{"a/b~c": 7}, {"a/b~c": 256}]});
        let problem = refused(request);
        assert_eq!(problem["code"], "wrong_type");
        assert_eq!(problem["at"], "/rows/1/a~1b~0c");
        let message = "256 is not accepted here: wrong kind of number, or out of range";
        assert_eq!(problem["message"], message);
        let problem = refused(json!({"action": "first"}));
        assert_eq!(problem["message"], "missing field `rows`");
        assert_eq!(problem["at"], "");
    }

    #[test]
    fn an_object_is_no_number() {
        let echo = |lists: BTreeMap<String, Vec<Number>>| Ok(lists);
        let actions = actions().register("numbers", "lists of numbers", echo);
        for object in [json!({}), json!({"a/b": 1}), json!({"": {}})] {
            let request = json!({"action": "numbers", "x": [1, object]});
            let problem = actions.call(request).unwrap_err();
            let problem = serde_json::to_value(problem).unwrap();
            let message = "invalid type: map, expected a JSON number";
            let expected = json!({"code": "wrong_type", "message": message, "at": "/x/1"});
            assert_eq!(problem, expected);
        }
    }

    #[test]
    fn errors_of_an_action_are_its_own() {
        let expected = json!({"code": "empty", "message": "no rows", "at": "/rows"});
        assert_eq!(refused(json!({"action": "first", "rows": []})), expected);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(refused(json!([1]))["code"], "not_an_object");
        assert_eq!(refused(json!({}))["code"], "missing_action");
        assert_eq!(refused(json!({"action": 1}))["code"], "wrong_type");
        for name in ["", "first ", "FIRST", "__class__", "register"] {
            let problem = refused(json!({ "action": name }));
            assert_eq!(problem["code"], "unknown_action");
            assert_eq!(problem["at"], "/action");
        }
    }

    #[test]
    fn what_a_client_sent_makes_no_long_message() {
        let problem = refused(json!({"action": "\u{20ac}".repeat(1_000)}));
        let message = problem["message"].as_str().unwrap();
        assert!(
            message.len() <= 256 && message.ends_with("..."),
            "{message}"
        );
    }

    #[test]
    #[should_panic(expected = "already an action \"help\"")]
    fn a_name_is_registered_once() {
        let _ = Actions::new().register("help", "another", |_: IgnoredAny| Ok(()));
    }
}
