//! Checks the model of `tests/model` with stateright, an independent model checker.
//!
//! Both searches must find the same number of states, and stateright must find the faults of runc that appear
//! without the measures against them.

mod faults;
mod properties;
mod protocol;
mod rules;
mod state;

use protocol::{Config, Mend, Role, Way};
use state::{Event, State, Transition, is_quiet};
use stateright::{Checker, Model, Property};

/// The model, as stateright reads it.
struct Start(state::Model);

/// A transition: its number among those of the state, so that two with the same event are different.
type Action = (usize, Role, Event);

impl Start {
    fn transitions(&self, state: &State) -> Vec<Transition> {
        let mut all = state.transitions(&self.0);
        all.extend(state.faults(&self.0));
        all
    }
}

impl Model for Start {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let all = self.transitions(state).into_iter().enumerate();
        actions.extend(all.map(|(number, (role, event, _))| (number, role, event)));
    }

    fn next_state(&self, state: &State, (number, ..): Action) -> Option<State> {
        self.transitions(state).into_iter().nth(number).map(|(.., next)| next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("all properties of the model", |start: &Self, state: &State| {
            let quiet = is_quiet(&state.transitions(&start.0));
            properties::violated(&start.0, state, quiet).is_none()
        })]
    }
}

fn config(way: Way, faults: u8, without: &[Mend]) -> Config {
    let debug = without.contains(&Mend::LogNeverBlocks);
    let (user, tools, own_maps, offsets, stops) = (true, 1, 1, false, true);
    Config { way, user, tools, own_maps, offsets, debug, faults, stops, without: without.to_vec() }
}

fn main() {
    for (way, faults) in [(Way::Ours, 3), (Way::Run, 3), (Way::Exec, 2)] {
        let found = properties::search(&state::Model::new(config(way, faults, &[])));
        assert!(found.violation.is_none());
        let checker = Start(state::Model::new(config(way, faults, &[]))).checker().spawn_bfs().join();
        checker.assert_properties();
        println!(
            "{way:?}, up to {faults} faults: {} states, all properties hold",
            checker.unique_state_count()
        );
        assert_eq!(checker.unique_state_count(), found.states, "the two searches differ");
    }
    for (way, mend) in [(Way::Run, Mend::ToolDescriptors), (Way::Ours, Mend::LogNeverBlocks)] {
        let checker = Start(state::Model::new(config(way, 1, &[mend]))).checker().spawn_bfs().join();
        let path = checker.discoveries().into_values().next().expect("a violation");
        let steps: Vec<_> = path.into_actions().into_iter().map(|(_, role, event)| (role, event)).collect();
        println!("without {mend:?} in {way:?}: violated after {} transitions", steps.len());
    }
}
