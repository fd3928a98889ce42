//! All differences of two runs, as a unified diff of the normalised lines.

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::{Item, Pair, both, difference, unseen};
use crate::transcript::Run;

/// The number of equal lines around a difference.
const CONTEXT: usize = 3;

/// The largest number of different lines for which the shortest list of changes is searched. Sections that
/// differ more are shown as removed and added as a whole.
const CHANGES_MAX: usize = 1000;

/// A line of the unified view: the index in the left section, in the right one, or in both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Edit {
    Same(usize, usize),
    Removed(usize),
    Added(usize),
}

/// Returns all differences of two runs as a unified diff, one for each process that differs. `names` are the
/// names of both runs, such as their files. The text is empty if [`compare`](super::compare) finds no
/// difference.
#[must_use]
pub fn unified(left: &Run, right: &Run, names: [&str; 2]) -> String {
    let pair = Pair::of(left, right);
    let mut out = String::new();
    for (name, sections) in pair.sections() {
        if difference(name.clone(), sections, pair.same_run).is_none() {
            continue;
        }
        let [from, to] = both(sections);
        out.push_str(&format!("--- {}  {name}\n+++ {}  {name}\n", names[0], names[1]));
        let edits = edits(&from, &to);
        for hunk in hunks(&edits) {
            push_hunk(&mut out, hunk, &from, &to);
        }
    }
    out
}

fn push_hunk(out: &mut String, hunk: &[Edit], from: &[Item<'_>], to: &[Item<'_>]) {
    let left = || hunk.iter().filter_map(|edit| edit.left());
    let right = || hunk.iter().filter_map(|edit| edit.right());
    let start = |first: Option<usize>| first.map_or(0, |first| first + 1);
    let (old, new) = (start(left().next()), start(right().next()));
    out.push_str(&format!("@@ -{old},{} +{new},{} @@\n", left().count(), right().count()));
    let text = |items: &[Item<'_>], index: usize| items.get(index).map_or_else(String::new, Item::text);
    for (at, edit) in hunk.iter().enumerate() {
        match *edit {
            Edit::Same(_, index) => out.push_str(&format!(" {}\n", text(to, index))),
            Edit::Removed(index) => out.push_str(&format!("-{}\n", text(from, index))),
            Edit::Added(index) => {
                out.push_str(&format!("+{}\n", text(to, index)));
                // The changed line directly before: the text of both may be the same.
                let before = at.checked_sub(1).and_then(|before| hunk.get(before));
                let removed = before.and_then(|edit| match edit {
                    Edit::Removed(index) => from.get(*index),
                    _ => None,
                });
                if let Some(why) = removed.zip(to.get(index)).and_then(|(old, new)| unseen(old, new)) {
                    out.push_str(&format!("\\ {why}\n"));
                }
            }
        }
    }
}

impl Edit {
    const fn left(self) -> Option<usize> {
        match self {
            Self::Same(left, _) | Self::Removed(left) => Some(left),
            Self::Added(_) => None,
        }
    }

    const fn right(self) -> Option<usize> {
        match self {
            Self::Same(_, right) | Self::Added(right) => Some(right),
            Self::Removed(_) => None,
        }
    }
}

/// Splits the edits into hunks: the changes with [`CONTEXT`] equal lines around them.
fn hunks(edits: &[Edit]) -> Vec<&[Edit]> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (at, edit) in edits.iter().enumerate() {
        if matches!(edit, Edit::Same(..)) {
            continue;
        }
        let (start, end) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(edits.len()));
        match ranges.last_mut() {
            Some(last) if last.1 >= start => last.1 = end,
            _ => ranges.push((start, end)),
        }
    }
    ranges.into_iter().filter_map(|(start, end)| edits.get(start..end)).collect()
}

/// Returns the shortest list of changes from one section to the other.
fn edits(from: &[Item<'_>], to: &[Item<'_>]) -> Vec<Edit> {
    let same = |left: usize, right: usize| {
        from.get(left).zip(to.get(right)).is_some_and(|(left, right)| left.same(right))
    };
    let limit = from.len().min(to.len());
    let head = (0..limit).take_while(|at| same(*at, *at)).count();
    let tail = (0..limit - head).take_while(|back| same(from.len() - 1 - back, to.len() - 1 - back)).count();
    let mut edits: Vec<Edit> = (0..head).map(|at| Edit::Same(at, at)).collect();
    let (old, new) = (from.len() - head - tail, to.len() - head - tail);
    edits.extend(shortest(old, new, |left, right| same(head + left, head + right)).into_iter().map(|edit| {
        match edit {
            Edit::Same(left, right) => Edit::Same(head + left, head + right),
            Edit::Removed(left) => Edit::Removed(head + left),
            Edit::Added(right) => Edit::Added(head + right),
        }
    }));
    edits.extend((0..tail).map(|at| Edit::Same(head + old + at, head + new + at)));
    edits
}

/// Finds the shortest list of changes between sequences of `old` and `new` lines: the algorithm of Myers
/// ("An O(ND) Difference Algorithm and Its Variations", 1986). For each number of changes, `reached` holds
/// the furthest line of the old sequence on each diagonal.
fn shortest(old: usize, new: usize, same: impl Fn(usize, usize) -> bool) -> Vec<Edit> {
    let replaced = || (0..old).map(Edit::Removed).chain((0..new).map(Edit::Added)).collect();
    let most = (old + new).min(CHANGES_MAX);
    // Diagonal k, the number of the old line minus that of the new line, has index k + most + 1.
    let offset = most + 1;
    let mut reached = vec![0_usize; 2 * most + 3];
    let mut history: Vec<Vec<usize>> = Vec::new();
    for changes in 0..=most {
        history.push(reached.clone());
        for step in 0..=changes {
            let index = offset + 2 * step - changes;
            let (below, above) = (furthest(&reached, index - 1), furthest(&reached, index + 1));
            let adds = step == 0 || (step != changes && below < above);
            let mut left = if adds { above } else { below + 1 };
            // The diagonal lies outside of both sequences.
            let Some(mut right) = (left + offset).checked_sub(index) else { continue };
            while left < old && right < new && same(left, right) {
                (left, right) = (left + 1, right + 1);
            }
            if let Some(place) = reached.get_mut(index) {
                *place = left;
            }
            if left >= old && right >= new {
                return walk_back(old, new, offset, &history);
            }
        }
    }
    replaced()
}

fn furthest(reached: &[usize], index: usize) -> usize {
    reached.get(index).copied().unwrap_or(0)
}

/// Returns the changes on the path that [`shortest`] found, from its end to its beginning and then reversed.
fn walk_back(old: usize, new: usize, offset: usize, history: &[Vec<usize>]) -> Vec<Edit> {
    let (mut left, mut right) = (old, new);
    let mut edits = Vec::new();
    for (changes, reached) in history.iter().enumerate().rev() {
        let index = left + offset - right;
        let (below, above) = (furthest(reached, index - 1), furthest(reached, index + 1));
        let adds = index + changes == offset || (index != offset + changes && below < above);
        let (before, line) = if adds { (index + 1, above) } else { (index - 1, below) };
        let other = (line + offset).saturating_sub(before);
        let (stop_left, stop_right) = match changes {
            0 => (0, 0),
            _ if adds => (line, other + 1),
            _ => (line + 1, other),
        };
        while left > stop_left && right > stop_right {
            (left, right) = (left - 1, right - 1);
            edits.push(Edit::Same(left, right));
        }
        if changes > 0 {
            edits.push(if adds { Edit::Added(other) } else { Edit::Removed(line) });
            (left, right) = (line, other);
        }
    }
    edits.reverse();
    edits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::compare;
    use crate::diff::tests::run;
    use std::string::ToString;

    #[test]
    fn unified_view_shows_every_difference_with_three_lines_around_it() {
        let left = run(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]);
        let right = run(&["a", "b", "x", "d", "e", "f", "g", "h", "i", "j", "y", "k"]);
        let expected = "\
--- one  stage-1 child
+++ two  stage-1 child
@@ -1,6 +1,6 @@
 prctl(PR_SET_NAME, \"a\") = 0
 prctl(PR_SET_NAME, \"b\") = 0
-prctl(PR_SET_NAME, \"c\") = 0
+prctl(PR_SET_NAME, \"x\") = 0
 prctl(PR_SET_NAME, \"d\") = 0
 prctl(PR_SET_NAME, \"e\") = 0
 prctl(PR_SET_NAME, \"f\") = 0
@@ -8,4 +8,5 @@
 prctl(PR_SET_NAME, \"h\") = 0
 prctl(PR_SET_NAME, \"i\") = 0
 prctl(PR_SET_NAME, \"j\") = 0
+prctl(PR_SET_NAME, \"y\") = 0
 prctl(PR_SET_NAME, \"k\") = 0
";
        assert_eq!(unified(&left, &right, ["one", "two"]), expected);
        assert_eq!(unified(&left, &left, ["one", "two"]), "");
        assert_eq!(
            unified(&run(&["a"]), &Run::default(), ["one", "two"]),
            "--- one  stage-1 child\n+++ two  stage-1 child\n@@ -1,1 +0,0 @@\n-prctl(PR_SET_NAME, \"a\") = 0\n"
        );
    }

    /// Applies the edits, and compares their number with the length of the longest common subsequence.
    #[test]
    fn changes_are_complete_and_as_few_as_possible() {
        let mut state = 1_u32;
        let mut random = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % most
        };
        for _ in 0..300 {
            let mut sequence = |_| (0..random(14)).map(|_| random(4)).collect::<Vec<u32>>();
            let (old, new) = (sequence(0), sequence(1));
            let edits = shortest(old.len(), new.len(), |left, right| old[left] == new[right]);
            let kept = |pick: fn(Edit) -> Option<usize>| edits.iter().filter_map(move |edit| pick(*edit));
            assert!(kept(Edit::left).eq(0..old.len()), "{old:?} {new:?} {edits:?}");
            assert!(kept(Edit::right).eq(0..new.len()), "{old:?} {new:?} {edits:?}");
            let same: Vec<(usize, usize)> = edits
                .iter()
                .filter_map(
                    |edit| if let Edit::Same(left, right) = edit { Some((*left, *right)) } else { None },
                )
                .collect();
            assert!(same.iter().all(|(left, right)| old[*left] == new[*right]));
            let mut table = vec![vec![0; new.len() + 1]; old.len() + 1];
            for left in 0..old.len() {
                for right in 0..new.len() {
                    table[left + 1][right + 1] = if old[left] == new[right] {
                        table[left][right] + 1
                    } else {
                        table[left][right + 1].max(table[left + 1][right])
                    };
                }
            }
            assert_eq!(same.len(), table[old.len()][new.len()], "{old:?} {new:?} {edits:?}");
        }
    }

    #[test]
    fn sections_that_differ_much_are_replaced_as_a_whole() {
        let names: Vec<std::string::String> = (0..1200).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(|name| &name[..]).collect();
        let others: Vec<&str> = names.iter().map(|_| "other").collect();
        let (left, right) = (run(&names), run(&others));
        assert!(!compare(&left, &right).is_empty());
        let text = unified(&left, &right, ["one", "two"]);
        assert_eq!(text.lines().count(), 3 + 2400);
    }
}
