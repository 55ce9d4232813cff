//! Requests: questions are answered from the state; edits go through the file, like anybody's.

use std::time::Duration;

use super::{Action, Controller, Level, Token, Unwritten, Writing, apply::NOBODY};
use crate::{
    api::{ConfigText, Done, Edit, Refusal, RefusalKind, Request, Response},
    config,
    model::{service::Desired, source::Source},
};

impl Controller {
    pub(super) fn take_request(
        &mut self,
        now: Duration,
        token: Token,
        request: Request,
        actions: &mut Vec<Action>,
    ) {
        if matches!(request, Request::Flows | Request::Pools(_)) {
            // As it is, not as it was seen last: whoever waits for the end of a change must not be told of none.
            if self.asking.is_empty() {
                actions.push(Action::ReadFlows);
            }
            self.asking.push((token, request));
            return;
        }
        self.answer(now, token, request, actions);
    }

    /// The flow table was read, or cannot be.
    pub(super) fn answer_waiting(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for (token, request) in std::mem::take(&mut self.asking) {
            self.answer(now, token, request, actions);
        }
    }

    fn answer(&mut self, now: Duration, token: Token, request: Request, actions: &mut Vec<Action>) {
        let response = match request {
            Request::Status => Response::Status(Box::new(self.status(now))),
            Request::Services(None) => Response::Services(self.service_views(now)),
            Request::Services(Some(name)) => found(
                "service",
                &name,
                self.service_views(now)
                    .into_iter()
                    .find(|view| view.name == name)
                    .map(Box::new)
                    .map(Response::Service),
            ),
            Request::Pools(None) => Response::Pools(self.pool_views(now)),
            Request::Pools(Some(name)) => found(
                "pool",
                &name,
                self.pool_views(now).into_iter().find(|view| view.name == name).map(Response::Pool),
            ),
            Request::Health => Response::Health(self.health_views(now)),
            Request::Stats => Response::Stats(self.stats()),
            Request::Metrics => Response::Metrics(Box::new(self.metrics(now))),
            Request::Flows => {
                Response::Flows(self.desired.pools.iter().map(|pool| self.flows_view(pool)).collect())
            }
            Request::Trace(spec) => return self.ask_trace(token, &spec, actions),
            Request::Events(query) => return self.take_events_query(token, query, actions),
            Request::Capture(query) => return self.take_capture_query(now, token, &query, actions),
            Request::Plan(_) | Request::Apply(_) | Request::Rollback(_) => {
                return self.propose(token, request, actions);
            }
            Request::Config => Response::Config(self.config_text()),
            Request::OnlyIf { etags, request } => match self.check_tag(&etags) {
                // What waits for files is checked again, as the last thing before it is written.
                Ok(()) if matches!(*request, Request::Apply(_) | Request::Rollback(_)) => {
                    return self.propose(token, Request::OnlyIf { etags, request }, actions);
                }
                Ok(()) => return self.answer(now, token, *request, actions),
                Err(refusal) => Response::Refused(refusal),
            },
            Request::Confirm => self.confirm(),
            Request::History(None) => Response::History(self.history_views()),
            Request::History(Some(number)) => self.past(number),
            Request::Edit(edit) => match self.edit(now, &edit) {
                Ok((source, desired)) => {
                    let said = describe(&edit);
                    return self.write(Writing { token, source, desired, said, terms: None }, actions);
                }
                Err(refusal) => Response::Refused(refusal),
            },
        };
        actions.push(Action::Reply { token, response });
    }

    fn config_text(&self) -> ConfigText {
        ConfigText {
            path: self.config.path.clone(),
            generation: self.config.generation,
            etag: self.etag(),
            text: self.source.text.clone(),
        }
    }

    /// What tells the configuration in force from others.
    pub(super) fn etag(&self) -> String {
        self.source.tag().to_string()
    }

    /// Whether the configuration in force is one of these.
    pub(super) fn check_tag(&self, etags: &[String]) -> Result<(), Refusal> {
        let etag = self.etag();
        if etags.contains(&etag) {
            return Ok(());
        }
        let error = format!(
            "another configuration is in force by now (generation {}, etag \"{etag}\"): look at it, and try again",
            self.config.generation
        );
        Err(refusal(RefusalKind::Outdated, error))
    }

    /// An order was carried out.
    pub(super) fn done(&self, message: impl Into<String>) -> Done {
        Done { generation: self.config.generation, etag: self.etag(), message: message.into() }
    }

    /// The configuration after the edit, and what it asks for.
    fn edit(&self, now: Duration, edit: &Edit) -> Result<(Source, Desired), Refusal> {
        if let Some(trial) = &self.trial {
            let left = trial.ends.saturating_sub(now).as_secs();
            let error = format!(
                "the configuration in force is on trial for {left} s more: lb confirm or lb rollback first"
            );
            return Err(refusal(RefusalKind::Conflict, error));
        }
        self.check_writable()?;
        let text = config::edit(&self.source, &self.with_deadline(now, edit)?)?;
        let source = Source { text, files: self.source.files.clone() };
        let desired = self
            .accept(&source, &self.config.path)
            .map_err(|errors| Refusal { kind: RefusalKind::Invalid, errors })?;
        Ok((source, desired))
    }

    /// The file was written, or not: only now does the edit take effect.
    pub(super) fn take_written(
        &mut self,
        now: Duration,
        token: Token,
        result: Result<(), Unwritten>,
        actions: &mut Vec<Action>,
    ) {
        let Some(Writing { source, desired, said, terms, .. }) =
            self.writing.take_if(|writing| writing.token == token)
        else {
            return;
        };
        let response = match result {
            Ok(()) => {
                let (before, up) = (self.source.clone(), self.up());
                self.adopt(now, source, desired, actions);
                self.begin_trial(now, before, up, terms);
                self.keep(now, said.clone(), actions);
                actions.push(Action::Log(Level::Info, format!("edited: {said}")));
                Response::Done(self.done(said))
            }
            Err(why) => {
                let (kind, why) = match why {
                    Unwritten::ChangedMeanwhile(why) => (RefusalKind::Conflict, why),
                    Unwritten::Failed(why) => (RefusalKind::Failed, why),
                };
                if token == NOBODY {
                    let said = format!("cannot write {}: {why}", self.config.path);
                    actions.push(Action::Log(Level::Error, said));
                }
                Response::Refused(refusal(kind, why))
            }
        };
        if token != NOBODY {
            actions.push(Action::Reply { token, response });
        }
    }
}

fn found(what: &str, name: &str, response: Option<Response>) -> Response {
    response.unwrap_or_else(|| {
        Response::Refused(refusal(RefusalKind::NotFound, format!("there is no {what} \"{name}\"")))
    })
}

pub(super) fn failed(why: String) -> Response {
    Response::Refused(refusal(RefusalKind::Failed, why))
}

pub(super) fn refusal(kind: RefusalKind, error: String) -> Refusal {
    Refusal { kind, errors: vec![error] }
}

/// What an edit did, one sentence.
fn describe(edit: &Edit) -> String {
    match edit {
        Edit::AddService(spec) => format!("service {} added", spec.name),
        Edit::SetService { name, .. } => format!("service {name} changed"),
        Edit::DeleteService { name } => format!("service {name} removed"),
        Edit::AddPool(spec) => format!("pool {} added", spec.name),
        Edit::SetPool { name, .. } => format!("pool {name} changed"),
        Edit::DeletePool { name } => format!("pool {name} removed"),
        Edit::AddBackend { pool, backend } => format!("backend {pool}/{} added", backend.name),
        Edit::SetBackend { pool, name, .. } => format!("backend {pool}/{name} changed"),
        Edit::DeleteBackend { pool, name } => format!("backend {pool}/{name} removed"),
    }
}
