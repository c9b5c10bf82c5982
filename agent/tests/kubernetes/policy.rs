//! A policy of admission, and a request that it judges, as an API server would.

use std::path::Path;
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, Program};
use serde_json::{Value, json};

/// As much of a policy as decides.
#[derive(Clone)]
pub(crate) struct Policy {
    conditions: Vec<Expression>,
    variables: Vec<(String, Expression)>,
    pub(crate) validations: Vec<Validation>,
}

/// Compiled once.
#[derive(Clone)]
pub(crate) struct Expression(pub(crate) String, Arc<Program>);

#[derive(Clone)]
pub(crate) struct Validation {
    pub(crate) rule: Expression,
    message: Result<String, Expression>,
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Expression {
    fn read(value: &Value) -> Self {
        let text = text(value);
        let program = Program::compile(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        Self(text, Arc::new(program))
    }

    fn evaluate(&self, context: &Context<'_>) -> Result<Value, String> {
        let Self(text, program) = self;
        let value = program.execute(context).map_err(|error| format!("cannot be evaluated: {text}: {error}"))?;
        value.json().map_err(|error| error.to_string())
    }

    fn is_true(&self, context: &Context<'_>) -> Result<bool, String> {
        let value = self.evaluate(context)?;
        value.as_bool().ok_or_else(|| format!("neither true nor false: {}", self.0))
    }
}

impl Validation {
    fn read(value: &Value) -> Self {
        let message = match value.get("messageExpression") {
            Some(message) => Err(Expression::read(message)),
            None => Ok(text(&value["message"])),
        };
        Self { rule: Expression::read(&value["expression"]), message }
    }

    fn says(&self, context: &Context<'_>) -> String {
        match &self.message {
            Ok(message) => message.clone(),
            Err(message) => text(&message.evaluate(context).expect("a message")),
        }
    }
}

impl Policy {
    pub(crate) fn read(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/base").join(file);
        let manifest = std::fs::read_to_string(path).expect("the manifest is there");
        let documents: Vec<Value> =
            manifest.split("\n---\n").map(|one| serde_saphyr::from_str(one).expect("YAML")).collect();
        let [policy, binding] = documents.as_slice() else { panic!("a policy and its binding") };
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
        Self::of(&policy["spec"])
    }

    /// As `components/cidrs-SOURCE` leaves it.
    pub(crate) fn of_facts_with_cidrs(source: &str) -> Self {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
        let read = |file: &str| std::fs::read_to_string(deploy.join(file)).expect("the manifest is there");
        let base = read("base/admission-node-facts.yaml");
        let mut policy: Value = serde_saphyr::from_str(base.split("\n---\n").next().expect("a policy")).expect("YAML");
        let component: Value =
            serde_saphyr::from_str(&read(&format!("components/cidrs-{source}/kustomization.yaml"))).expect("YAML");
        let patches: Vec<Value> = serde_saphyr::from_str(&text(&component["patches"][1]["patch"])).expect("a patch");
        for patch in &patches {
            let path = text(&patch["path"]);
            match text(&patch["op"]).as_str() {
                "test" => assert_eq!(policy.pointer(&path), Some(&patch["value"]), "{path}"),
                "replace" => *policy.pointer_mut(&path).expect("it is there") = patch["value"].clone(),
                "remove" => {
                    let (list, number) = path.rsplit_once('/').expect("a path");
                    let list = policy.pointer_mut(list).and_then(Value::as_array_mut).expect("a list");
                    list.remove(number.parse().expect("a number"));
                }
                other => panic!("{other} is not known here"),
            }
        }
        Self::of(&policy["spec"])
    }

    fn of(spec: &Value) -> Self {
        assert_eq!(spec["failurePolicy"], "Fail");
        let all = |key: &str| spec[key].as_array().into_iter().flatten();
        Self {
            conditions: all("matchConditions").map(|one| Expression::read(&one["expression"])).collect(),
            variables: all("variables").map(|one| (text(&one["name"]), Expression::read(&one["expression"]))).collect(),
            validations: all("validations").map(Validation::read).collect(),
        }
    }

    pub(crate) fn expressions(&self) -> impl Iterator<Item = &str> {
        let variables = self.variables.iter().map(|(_, expression)| expression);
        let rules = self.validations.iter().flat_map(|one| one.message.as_ref().err().into_iter().chain([&one.rule]));
        self.conditions.iter().chain(variables).chain(rules).map(|expression| expression.0.as_str())
    }

    /// `Err` is a refusal, with its message. Whatever cannot be evaluated is refused, as `failurePolicy: Fail` says.
    pub(crate) fn judge(&self, case: &Case) -> Result<(), String> {
        let mut context = case.context();
        for condition in &self.conditions {
            if !condition.is_true(&context)? {
                return Ok(());
            }
        }
        let mut variables = serde_json::Map::new();
        for (name, expression) in &self.variables {
            // One that cannot be evaluated is a fault of those that use it, and of nobody else.
            if let Ok(value) = expression.evaluate(&context) {
                variables.insert(name.clone(), value);
                context.add_variable("variables", variables.clone()).expect("a map");
            }
        }
        for validation in &self.validations {
            if !validation.rule.is_true(&context)? {
                return Err(validation.says(&context));
            }
        }
        Ok(())
    }
}

/// A request as the policies see it.
#[derive(Clone)]
pub(crate) struct Case {
    request: Value,
    object: Value,
    old: Value,
    params: Value,
    is_administrator: bool,
}

impl Case {
    /// What is empty an API server leaves out of a request, and asking for it is an error.
    fn new(user: &Value, operation: &str, resource: &str, object: Value, old: Value) -> Self {
        let (resource, sub) =
            resource.split_once('/').map_or((resource, None), |(resource, sub)| (resource, Some(sub)));
        let mut request = json!({"uid": "u", "operation": operation, "userInfo": user,
            "resource": {"group": "warren.dev", "version": "v1alpha1", "resource": resource}});
        if let Some(sub) = sub {
            request["subResource"] = sub.into();
        }
        Self { request, object, old, params: Value::Null, is_administrator: false }
    }

    pub(crate) fn create(user: &Value, resource: &str, object: Value) -> Self {
        Self::new(user, "CREATE", resource, object, Value::Null)
    }

    pub(crate) fn update(user: &Value, resource: &str, old: Value, object: Value) -> Self {
        Self::new(user, "UPDATE", resource, object, old)
    }

    pub(crate) fn delete(user: &Value, resource: &str, old: Value) -> Self {
        Self::new(user, "DELETE", resource, Value::Null, old)
    }

    pub(crate) fn by_administrator(self) -> Self {
        Self { is_administrator: true, ..self }
    }

    pub(crate) fn against(self, params: &Value) -> Self {
        Self { params: params.clone(), ..self }
    }

    fn context(&self) -> Context<'static> {
        let mut context = Context::default();
        for (name, value) in
            [("request", &self.request), ("object", &self.object), ("oldObject", &self.old), ("params", &self.params)]
        {
            context.add_variable(name, value).expect("JSON is CEL");
        }
        let allowed = self.is_administrator;
        context.add_variable("authorizer", "").expect("a text");
        let grow = |This(this): This<Arc<String>>, word: Arc<String>| format!("{this} {word}");
        context.add_function("group", grow);
        context.add_function("resource", grow);
        context.add_function("check", grow);
        context.add_function("allowed", move |This(asked): This<Arc<String>>| {
            assert_eq!(*asked, " warren.dev warrennodes administer");
            allowed
        });
        context
    }
}
