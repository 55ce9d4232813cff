//! The file under hands that are not ours.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use tokio::time::timeout;

use super::*;
use crate::model::source::Files;

/// A directory, a file in it with the text "one", read once and watched.
struct Scene {
    directory: tempfile::TempDir,
    file: ConfigFile,
    events: mpsc::Receiver<ConfigFileEvent>,
    /// The files that the last news told of.
    files: Files,
}

/// Each line of such a text that begins with `@` names a file.
fn named(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix('@')).map(str::to_owned).collect()
}

impl Scene {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.toml");
        fs::write(&path, "one").unwrap();
        Self::of(directory, path).await
    }

    async fn of(directory: tempfile::TempDir, path: PathBuf) -> Self {
        let file = ConfigFile::new(path, named);
        file.read().await.unwrap();
        let (sender, events) = mpsc::channel(8);
        let watched = file.clone();
        tokio::spawn(async move { watched.watch(sender).await.unwrap() });
        // Let it set its watches: what happens before is seen by its first look.
        tokio::task::yield_now().await;
        Self { directory, file, events, files: Files::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn next(&mut self) -> Option<String> {
        match timeout(Duration::from_secs(30), self.events.recv()).await.expect("an event in time") {
            Some(ConfigFileEvent::Changed(source)) => {
                self.files = source.files;
                Some(source.text)
            }
            Some(ConfigFileEvent::Unreadable(_)) => None,
            None => panic!("the watcher ended"),
        }
    }

    async fn nothing(&mut self) {
        let event = timeout(Duration::from_millis(400), self.events.recv()).await;
        assert!(event.is_err(), "unexpected {event:?}");
    }
}

#[tokio::test]
async fn replacing_keeps_mode_owner_and_link_and_is_not_news() {
    let mut scene = Scene::new().await;
    let real = scene.path("lb.toml");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    let is_root = fs::metadata(&real).unwrap().uid() == 0;
    if is_root {
        chown(&real, Some(12), Some(34)).unwrap();
    }
    symlink("lb.toml", scene.path("link.toml")).unwrap();
    let link = ConfigFile { path: scene.path("link.toml"), named, known: Arc::clone(&scene.file.known) };

    link.replace("one", "two").await.unwrap();

    assert_eq!(fs::read_to_string(&real).unwrap(), "two");
    assert!(fs::symlink_metadata(scene.path("link.toml")).unwrap().is_symlink());
    let metadata = fs::metadata(&real).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    if is_root {
        assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
    }
    assert_eq!(fs::read_dir(scene.directory.path()).unwrap().count(), 2, "no temporary file is left");
    scene.nothing().await;
}

/// A busy disk: the temporary file wakes the watcher long before the new text is there.
#[tokio::test]
async fn a_replacement_that_takes_long_is_not_news() {
    let mut scene = Scene::new().await;
    let slow = scene.file.alone(|path, known| {
        fs::write(path.with_extension("new"), "two").unwrap();
        std::thread::sleep(4 * QUIET);
        fs::rename(path.with_extension("new"), path).unwrap();
        *known = Some(Source::of("two"));
    });
    slow.await;
    scene.nothing().await;
}

#[tokio::test]
async fn what_someone_else_wrote_is_not_overwritten() {
    let scene = Scene::new().await;
    fs::write(scene.path("lb.toml"), "theirs").unwrap();
    let refused = scene.file.replace("one", "ours").await;
    assert!(matches!(refused, Err(ConfigFileError::ChangedMeanwhile { .. })), "{refused:?}");
    assert_eq!(fs::read_to_string(scene.path("lb.toml")).unwrap(), "theirs");
}

#[tokio::test]
async fn writes_renames_removal_and_return_are_seen_once_each() {
    let mut scene = Scene::new().await;
    let path = scene.path("lb.toml");

    fs::write(&path, "two").unwrap();
    assert_eq!(scene.next().await.as_deref(), Some("two"));

    fs::write(scene.path("lb.toml~"), "three").unwrap();
    fs::rename(scene.path("lb.toml~"), &path).unwrap();
    assert_eq!(scene.next().await.as_deref(), Some("three"));

    fs::write(&path, "three").unwrap();
    scene.nothing().await;

    fs::remove_file(&path).unwrap();
    assert_eq!(scene.next().await, None);
    fs::write(scene.path("other"), "x").unwrap();
    scene.nothing().await;

    fs::write(&path, "three").unwrap();
    assert_eq!(scene.next().await.as_deref(), Some("three"));
}

#[tokio::test]
async fn a_burst_of_writes_is_one_change() {
    let mut scene = Scene::new().await;
    for n in 0..20 {
        fs::write(scene.path("lb.toml"), format!("{n}")).unwrap();
    }
    assert_eq!(scene.next().await.as_deref(), Some("19"));
    scene.nothing().await;
}

#[tokio::test]
async fn a_file_that_is_emptied_before_it_is_written_does_not_count_as_empty() {
    let mut scene = Scene::new().await;
    fs::write(scene.path("lb.toml"), "").unwrap();
    tokio::time::sleep(3 * QUIET).await;
    fs::write(scene.path("lb.toml"), "two").unwrap();
    assert_eq!(scene.next().await.as_deref(), Some("two"));
    fs::write(scene.path("lb.toml"), "").unwrap();
    assert_eq!(scene.next().await.as_deref(), Some(""), "but one that stays empty does");
}

#[tokio::test]
async fn a_swapped_directory_link_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, text) in [("v1", "one"), ("v2", "two"), ("v3", "three")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("lb.toml"), text).unwrap();
    }
    symlink("v1", at("..data")).unwrap();
    symlink("..data/lb.toml", at("lb.toml")).unwrap();
    let path = at("lb.toml");
    let mut scene = Scene::of(directory, path).await;
    for (version, text) in [("v2", "two"), ("v3", "three")] {
        symlink(version, scene.path("..data_tmp")).unwrap();
        fs::rename(scene.path("..data_tmp"), scene.path("..data")).unwrap();
        assert_eq!(scene.next().await.as_deref(), Some(text));
    }
    // In place, behind both links.
    fs::write(scene.path("v3/lb.toml"), "four").unwrap();
    assert_eq!(scene.next().await.as_deref(), Some("four"));
}

#[tokio::test]
async fn a_directory_that_goes_and_comes_back_is_watched_again() {
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("lb.toml"), "one").unwrap();
    let mut scene = Scene::of(directory, etc.join("lb.toml")).await;
    fs::remove_dir_all(&etc).unwrap();
    assert_eq!(scene.next().await, None);
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("lb.toml"), "two").unwrap();
    assert_eq!(scene.next().await.as_deref(), Some("two"));
    fs::write(etc.join("lb.toml"), "three").unwrap();
    assert_eq!(scene.next().await.as_deref(), Some("three"));
}

#[tokio::test]
async fn what_is_no_text_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.toml");
    fs::write(&path, b"ab\xff").unwrap();
    let error = ConfigFile::new(&path, named).read().await.unwrap_err();
    assert!(matches!(error, ConfigFileError::NotText { valid_up_to: 2, .. }), "{error}");
    let error = ConfigFile::new(directory.path().join("none"), named).read().await.unwrap_err();
    assert!(matches!(error, ConfigFileError::Read { .. }), "{error}");
    let error = ConfigFile::new("/dev/zero", named).read().await.unwrap_err();
    assert!(matches!(error, ConfigFileError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn files_that_the_text_names_are_read_and_watched_with_it() {
    let mut scene = Scene::new().await;
    let away = tempfile::tempdir().unwrap();
    let list = away.path().join("list.txt");
    fs::create_dir(scene.path("lists")).unwrap();
    fs::write(scene.path("lists/near.txt"), "near").unwrap();
    let text = format!("@lists/near.txt\n@{}\n", list.display());
    fs::write(scene.path("lb.toml"), &text).unwrap();
    assert_eq!(scene.next().await, Some(text.clone()));
    let [far, near] = [list.display().to_string(), "lists/near.txt".to_owned()];
    assert_eq!(scene.files[&near], Ok("near".into()));
    assert_eq!(scene.files[&far], Err("No such file or directory (os error 2)".to_owned()));

    for (path, name, content) in
        [(&list, &far, "far"), (&scene.path("lists/near.txt"), &near, "other"), (&list, &far, "again")]
    {
        fs::write(path, content).unwrap();
        assert_eq!(scene.next().await, Some(text.clone()), "{name}");
        assert_eq!(scene.files[name], Ok(content.into()));
    }
    fs::remove_file(&list).unwrap();
    assert_eq!(scene.next().await, Some(text.clone()));
    assert!(scene.files[&far].is_err());

    // Nobody names them any more.
    fs::write(scene.path("lb.toml"), "two").unwrap();
    assert_eq!(scene.next().await, Some("two".to_owned()));
    fs::write(&list, "unread").unwrap();
    scene.nothing().await;
}

/// A change of such a file is news also if it happens while the configuration is replaced.
#[tokio::test]
async fn a_replacement_hides_no_change_of_a_named_file() {
    let mut scene = Scene::new().await;
    fs::write(scene.path("list"), "old").unwrap();
    fs::write(scene.path("lb.toml"), "@list\n").unwrap();
    assert_eq!(scene.next().await, Some("@list\n".to_owned()));
    scene
        .file
        .alone({
            let list = scene.path("list");
            move |_, _| fs::write(list, "new").unwrap()
        })
        .await;
    scene.file.replace("@list\n", "@list\n# edited\n").await.unwrap();
    assert_eq!(scene.next().await, Some("@list\n# edited\n".to_owned()));
    assert_eq!(scene.files["list"], Ok("new".into()));
}
