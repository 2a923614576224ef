//! `rotate`

use openid_deferred::poller::{self, KeyUse, Rotation, RotationProgress};

use crate::Health;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::location::Opened;
use crate::output::{Output, bar, counted, table};

pub(crate) async fn run(opened: &Opened, keys: &Keys, output: &mut Output) -> Result<Health, Failure> {
    let keyring = keys.keyring()?;
    let bar = bar(output.form(), "sealing again {bar:40} {pos} of {len} rows, {eta} left");
    let draw = |progress: RotationProgress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let rotation = poller::rotate(&*opened.store(), &keyring, draw).await;
    bar.finish_and_clear();
    let rotation = rotation.map_err(|error| {
        let failure = Failure::library("the rotation stopped", &error);
        failure.advise("the rows that were sealed again stay so; repeat the command")
    })?;
    output.print(&rotation, || text(&rotation))?;
    // Rows that no key of the keyring opens stay as they are.
    Ok(if rotation.unreadable == 0 { Health::Well } else { Health::Unwell })
}

fn text(rotation: &Rotation) -> String {
    let Rotation { resealed, changed_meanwhile, unreadable, keys, .. } = rotation;
    let mut text = format!("{} sealed again", counted(*resealed, "row was", "rows were"));
    if *changed_meanwhile > 0 {
        text.push_str(&format!("; replicas changed {changed_meanwhile} more at the same time"));
    }
    if *unreadable > 0 {
        text.push_str(&format!(
            "\n{} cannot be opened, because the keyring lacks their key: add it and repeat the command",
            counted(*unreadable, "row", "rows")
        ));
    }
    let mut rows = vec![["KEY", "USE", "SEALED ROWS", "PENDING SIGN-INS"].map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| {
        vec![key.key_id.clone(), what_to_do(key).to_owned(), key.sealed.to_string(), key.waiting.to_string()]
    }));
    format!("{text}\n\n{}", table(&rows))
}

fn what_to_do(key: &KeyUse) -> &'static str {
    match (key.is_known, key.is_primary, key.is_needed()) {
        (false, ..) => "missing",
        (true, true, _) => "primary",
        (true, false, true) => "needed",
        (true, false, false) => "may be retired",
    }
}
