//! Which file of `src` names items of which other. Paths in `use` and in code are followed through re-exports to the
//! file that defines the item, so that a parent that only declares or re-exports its children stands between nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module's path from the crate's root. One module is one file.
pub(super) type Module = Vec<String>;

/// A file of `src`.
pub(super) struct File {
    pub(super) path: String,
    /// The code, without comments, the contents of strings, and tests.
    pub(super) code: String,
    /// The names that a `use` brings in, each with its path.
    names: BTreeMap<String, Module>,
}

/// The files of `src` that are no tests, by module.
pub(super) struct Graph(pub(super) BTreeMap<Module, File>);

impl Graph {
    /// Reads sources: paths inside `src`, and texts.
    pub(super) fn read<'a>(sources: impl Iterator<Item = (&'a Path, &'a str)>) -> Self {
        let is_test = |path: &Path| {
            let is_test =
                |part: std::path::Component<'_>| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs"));
            path.components().any(is_test) || path.to_string_lossy().ends_with("_tests.rs")
        };
        let file = |(path, text): (&Path, &str)| {
            let code = code(text);
            let mut names = Vec::new();
            split_uses(&code).0.iter().for_each(|one| expand("", one.tree, &mut names));
            let names = names.into_iter().collect();
            (module(path), File { path: path.display().to_string(), code, names })
        };
        Self(sources.filter(|(path, _)| !is_test(path)).map(file).collect())
    }

    /// The modules that define what a file names.
    pub(super) fn imports(&self, of: &Module) -> BTreeSet<Module> {
        let (uses, rest) = split_uses(&self.0[of].code);
        let mut names = Vec::new();
        // What a module re-exports, it does not use.
        uses.iter().filter(|one| !one.is_export).for_each(|one| expand("", one.tree, &mut names));
        let paths = names.into_iter().map(|(_, path)| path).chain(inline_paths(&rest));
        let targets = paths.filter_map(|path| Some(self.resolve(&self.absolute(of, &path)?, 0)));
        targets.filter(|to| to != of && !to.is_empty()).collect()
    }

    /// The module that defines a name that a file uses.
    pub(super) fn definition(&self, of: &Module, name: &str) -> Module {
        let path = self.0[of].names.get(name).and_then(|path| self.absolute(of, path));
        path.map_or_else(|| of.clone(), |path| self.resolve(&path, 0))
    }

    /// The files that import each other in a circle.
    pub(super) fn in_circles(&self) -> BTreeSet<&str> {
        let imports: BTreeMap<_, _> = self.0.keys().map(|module| (module, self.imports(module))).collect();
        let reached = |from: &Module| {
            let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
            while let Some(module) = left.pop() {
                let next = imports.get(module).into_iter().flatten();
                left.extend(next.filter(|module| reached.insert(*module)));
            }
            reached.contains(from)
        };
        self.0.iter().filter(|(module, _)| reached(module)).map(|(_, file)| file.path.as_str()).collect()
    }

    /// A path from the crate's root; `None` for a path into another crate.
    fn absolute(&self, of: &Module, path: &[String]) -> Option<Module> {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let join = |to: &[String], rest: &[String]| -> Module { to.iter().chain(rest).cloned().collect() };
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some(join(of, &path[1..])),
            "super" => Some(join(&of[..of.len().checked_sub(supers)?], &path[supers..])),
            child => self.0.contains_key(&join(of, &[child.to_owned()])).then(|| join(of, path)),
        }
    }

    /// The module that defines the item at a path from the crate's root.
    fn resolve(&self, path: &[String], depth: usize) -> Module {
        let mut at = Module::new();
        for (index, part) in path.iter().enumerate() {
            at.push(part.clone());
            if self.0.contains_key(&at) {
                continue;
            }
            at.pop();
            let alias = self.0.get(&at).and_then(|file| file.names.get(part)).filter(|_| depth < 8);
            let Some(alias) = alias.and_then(|alias| self.absolute(&at, alias)) else { return at };
            let path: Module = alias.iter().chain(&path[index + 1..]).cloned().collect();
            return self.resolve(&path, depth + 1);
        }
        at
    }
}

/// The module that a file is.
fn module(path: &Path) -> Module {
    let path = path.with_extension("");
    let mut module: Module = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// A text without comments, the contents of strings, and the module of its tests.
fn code(text: &str) -> String {
    let is_tests =
        |at: &usize| text[*at..].lines().nth(1).is_some_and(|line| line.contains("mod ") && line.ends_with('{'));
    let tests = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_tests).unwrap_or(text.len());
    let mut code = String::new();
    for line in text[..tests].lines().map(|line| line.split("//").next().unwrap_or_default()) {
        let parts = line.split('"').enumerate().filter(|(index, _)| index % 2 == 0).map(|(_, part)| part);
        code.push_str(&parts.collect::<Vec<_>>().join("\"\""));
        code.push('\n');
    }
    code
}

/// A `use`, and whether it re-exports.
struct Use<'a> {
    tree: &'a str,
    is_export: bool,
}

/// Takes the `use` statements out of a code.
fn split_uses(code: &str) -> (Vec<Use<'_>>, String) {
    let (mut uses, mut rest) = (Vec::new(), String::new());
    for statement in code.split_inclusive(';') {
        let found = statement.match_indices("use ").find_map(|(at, word)| {
            let line = statement[..at].rfind('\n').map_or(0, |end| end + 1);
            let before = statement[line..at].trim();
            let tree = statement[at + word.len()..].strip_suffix(';')?;
            (before.is_empty() || before.starts_with("pub"))
                .then_some((line, Use { tree, is_export: !before.is_empty() }))
        });
        match found {
            Some((line, one)) => {
                rest.push_str(&statement[..line]);
                uses.push(one);
            }
            None => rest.push_str(statement),
        }
    }
    (uses, rest)
}

/// Expands `a::{b, c::{d, e as f}}` into its leaves.
fn expand(prefix: &str, tree: &str, found: &mut Vec<(String, Module)>) {
    let (mut depth, mut start) = (0, 0);
    let ends = tree.char_indices().filter_map(|(at, character)| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (character == ',' && depth == 0).then_some(at)
    });
    for end in ends.chain([tree.len()]).collect::<Vec<_>>() {
        let branch = tree[start..end].trim();
        start = (end + 1).min(tree.len());
        match branch.split_once('{') {
            Some((head, rest)) => {
                expand(&format!("{prefix}{}", head.trim()), rest.trim_end().strip_suffix('}').unwrap_or(rest), found)
            }
            None if branch.is_empty() => {}
            None => {
                let (path, alias) = branch.split_once(" as ").unwrap_or((branch, ""));
                let mut path: Module =
                    format!("{prefix}{path}").split("::").map(|part| part.trim().to_owned()).collect();
                if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                let name =
                    if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.trim().to_owned() };
                found.push((name, path));
            }
        }
    }
}

/// The paths that stand in a code without `use`.
fn inline_paths(code: &str) -> Vec<Module> {
    let is_path = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    let words = code.split(|character| !is_path(character));
    let paths = words.filter(|word| word.contains("::") && !word.starts_with(':'));
    paths.map(|word| word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()).collect()
}

/// The structs of a code, each with the number of its named fields.
pub(super) fn structs(code: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("struct ") {
        let Some((head, body)) = code[at + word.len()..].split_once('{') else { continue };
        let name = head.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
        if head.contains([';', '(']) || name.is_empty() {
            continue;
        }
        let is_field = |line: &&str| {
            let field = line.strip_prefix("    ").unwrap_or_default();
            let field = field
                .strip_prefix("pub")
                .map_or(field, |rest| rest.rsplit(") ").next().unwrap_or_default().trim_start());
            let name = field.split(':').next().unwrap_or_default();
            field.contains(':') && name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.is_empty()
        };
        found.push((name, body.lines().take_while(|line| !line.starts_with('}')).filter(is_field).count()));
    }
    found
}

/// The types that a code has inherent `impl` blocks of.
pub(super) fn implemented(code: &str) -> Vec<&str> {
    let name = |line: &'_ str| -> Option<std::ops::Range<usize>> {
        let rest = line.strip_prefix("impl")?;
        let rest = match rest.strip_prefix('<') {
            Some(generics) => &generics[generics.find("> ")? + 1..],
            None => rest,
        };
        let rest = rest.strip_prefix(' ').filter(|rest| !rest.contains(" for "))?;
        let start = line.len() - rest.len();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        Some(start..start + end)
    };
    code.lines().filter_map(|line| Some(&line[name(line)?])).collect()
}
