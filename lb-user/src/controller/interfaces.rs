//! Where packets meet the tables.

use super::{Action, Controller, Level};
use crate::api::InterfaceView;

impl Controller {
    /// Where the daemon is attached: from now on packets meet the tables.
    pub fn set_interfaces(&mut self, interfaces: Vec<InterfaceView>) {
        self.interfaces = interfaces;
        self.aside = false;
    }

    /// An interface is gone, or another one has its name.
    pub(super) fn take_interface(
        &mut self,
        name: String,
        state: Result<InterfaceView, String>,
        actions: &mut Vec<Action>,
    ) {
        self.interfaces.retain(|interface| interface.name != name);
        match state {
            Ok(view) => {
                self.lost.remove(&name);
                let said = format!("attached to {name} again (index {})", view.index);
                actions.push(Action::Log(Level::Info, said));
                self.interfaces.push(view);
            }
            Err(why) => {
                actions.push(Action::Log(Level::Error, format!("{name}: {why}")));
                self.lost.insert(name, why);
            }
        }
    }

    /// The tables are to be filled while an earlier daemon's programs forward by others, until [`Self::set_interfaces`].
    pub fn fill_aside(&mut self) {
        self.aside = true;
    }
}
