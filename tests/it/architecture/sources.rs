//! The files of the crate, and which of them uses which: by the paths that their code names, re-exports followed to the
//! file that defines the name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Returns every Rust file of a folder, and what it holds.
pub(super) fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}

/// Every file of a crate by its module, `edge/transport/frames`; the root is empty.
pub(super) struct Sources(BTreeMap<String, File>);

/// A file, without comments and tests.
pub(super) struct File {
    imports: Vec<Import>,
    /// The code, without its imports.
    pub(super) code: String,
    /// The code, imports included.
    pub(super) all: String,
}

struct Import {
    /// The name that the file knows it by.
    name: String,
    path: Vec<String>,
    is_reexport: bool,
}

impl Sources {
    /// Reads all files of a folder, but for the program's own and those that hold tests.
    pub(super) fn read(folder: &Path) -> Self {
        let files = files(folder).into_iter().filter_map(|(path, text)| {
            let module = path.strip_prefix(folder).unwrap().with_extension("");
            let module = module.to_str().unwrap();
            let is_tests = module.split('/').any(|part| part == "tests");
            let module = if module == "lib" { "" } else { module };
            (!is_tests && module != "main").then(|| (module.to_owned(), File::parse(&text)))
        });
        Self(files.collect())
    }

    /// Makes a crate of these modules.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(module, text)| ((*module).to_owned(), File::parse(text))).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &File)> {
        self.0.iter().map(|(module, file)| (&**module, file))
    }

    /// Returns the other files that a file uses.
    pub(super) fn used_by(&self, module: &str) -> BTreeSet<&str> {
        let file = &self.0[module];
        let mut paths: Vec<Vec<String>> = Vec::new();
        for Import { name, path, is_reexport } in &file.imports {
            let is_module = self.absolute(module, path).is_some_and(|path| self.0.contains_key(&path.join("/")));
            if is_module {
                paths.extend(paths_from(&file.code, name).map(|rest| [&path[..], &rest[1..]].concat()));
            } else if !is_reexport || words(&file.code).any(|word| word == name.as_str()) {
                paths.push(path.clone());
            }
        }
        for start in ["crate", "super", "self"] {
            paths.extend(paths_from(&file.code, start));
        }
        for child in self.0.keys().filter_map(|other| child_of(module, other)) {
            paths.extend(paths_from(&file.code, child));
        }
        let mut used: BTreeSet<_> = paths.iter().filter_map(|path| self.definition(module, path)).collect();
        used.remove(module);
        used
    }

    /// Returns the circles: sets of files of which each uses all others, directly or by way of others.
    pub(super) fn circles(&self) -> BTreeSet<Vec<&str>> {
        let uses: BTreeMap<_, _> = self.iter().map(|(module, _)| (module, self.used_by(module))).collect();
        let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, used) in &uses {
            let reached = reached.entry(module).or_default();
            let mut next: Vec<&str> = used.iter().copied().collect();
            while let Some(module) = next.pop() {
                if reached.insert(module) {
                    next.extend(&uses[module]);
                }
            }
        }
        let circles = reached.iter().map(|(module, others)| {
            others.iter().copied().filter(|other| reached[other].contains(module)).collect::<Vec<_>>()
        });
        circles.filter(|circle| !circle.is_empty()).collect()
    }

    /// Returns the file that defines what a path means in a module; none if that is another crate.
    fn definition(&self, module: &str, path: &[String]) -> Option<&str> {
        let path = self.absolute(module, path)?;
        let depth = (0..=path.len()).rev().find(|depth| self.0.contains_key(&path[..*depth].join("/")))?;
        let (module, file) = self.0.get_key_value(&path[..depth].join("/"))?;
        let Some(item) = path.get(depth) else { return Some(module) };
        match file.imports.iter().find(|import| import.name == *item) {
            Some(import) => self.definition(module, &[&import.path[..], &path[depth + 1..]].concat()),
            None => Some(module),
        }
    }

    /// Returns a path of a module from the root on; none if it leads to another crate.
    fn absolute(&self, module: &str, path: &[String]) -> Option<Vec<String>> {
        let mut base: Vec<String> = module.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut path = path.iter().peekable();
        match path.peek()?.as_str() {
            "crate" => {
                base.clear();
                path.next();
            }
            "self" => drop(path.next()),
            "super" => {
                while path.next_if(|part| *part == "super").is_some() {
                    base.pop();
                }
            }
            child => {
                let is_child = self.0.keys().any(|other| child_of(module, other) == Some(child));
                is_child.then_some(())?;
            }
        }
        base.extend(path.cloned());
        Some(base)
    }
}

impl File {
    fn parse(text: &str) -> Self {
        // Where a name is visible is no use of it.
        let text = text.split("\n#[cfg(test)]").next().unwrap().replace("(in crate::", "(in ");
        let mut file = Self { imports: Vec::new(), code: String::new(), all: String::new() };
        let mut import = String::new();
        for line in text.lines().map(|line| line.split("//").next().unwrap().trim()) {
            file.all.extend([line, " "]);
            let begins =
                ["use ", "pub use ", "pub(super) use ", "pub(crate) use "].iter().any(|use_| line.starts_with(use_));
            if !begins && import.is_empty() {
                file.code.extend([line, " "]);
                continue;
            }
            import.push_str(line);
            if let Some(statement) = import.strip_suffix(';') {
                let (visibility, tree) = statement.split_once("use ").unwrap();
                collect(tree, &[], !visibility.is_empty(), &mut file.imports);
                import.clear();
            }
        }
        file
    }
}

/// Collects the imports of a `use` tree.
fn collect(tree: &str, prefix: &[String], is_reexport: bool, into: &mut Vec<Import>) {
    let below = |path: &str| {
        let parts = path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        prefix.iter().cloned().chain(parts).collect::<Vec<String>>()
    };
    if let Some((path, group)) = tree.strip_suffix('}').and_then(|tree| tree.split_once('{')) {
        for tree in split_outside_braces(group) {
            collect(tree, &below(path), is_reexport, into);
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path = below(path);
    path.pop_if(|last| *last == "self" || *last == "*");
    let name = if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.trim().to_owned() };
    into.push(Import { name, path, is_reexport });
}

fn split_outside_braces(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let items = group.split(move |letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == ',' && depth == 0
    });
    items.map(str::trim).filter(|item| !item.is_empty())
}

/// Returns the paths in some code that begin with this name.
fn paths_from<'a>(code: &'a str, start: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(start).filter_map(move |(at, _)| {
        let is_start = !code[..at].ends_with(|letter: char| is_word(letter) || letter == ':');
        let rest = code[at + start.len()..].strip_prefix("::").filter(|_| is_start)?;
        let path = rest.split(|letter: char| !is_word(letter) && letter != ':').next()?;
        Some(
            std::iter::once(start).chain(path.split("::")).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        )
    })
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// Returns the name of a module below another one, if it stands right below.
fn child_of<'a>(parent: &str, module: &'a str) -> Option<&'a str> {
    let rest = if parent.is_empty() { module } else { module.strip_prefix(parent)?.strip_prefix('/')? };
    Some(rest).filter(|rest| !rest.is_empty() && !rest.contains('/'))
}
