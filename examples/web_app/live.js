// Shows what the server sends, without a reload. The server renders and escapes all of it; this script only inserts it.
"use strict";

const live = document.getElementById("live");
if (live) {
  const offline = document.getElementById("offline");
  const announcement = document.getElementById("announcement");
  const source = new EventSource(live.dataset.live);
  const announced = () => [...live.querySelectorAll("[data-announce]")].map((part) => part.textContent).join(" ");

  // If a block is still of the same kind, only the parts that differ are replaced. So users do not lose what they type
  // or the button that they are about to press.
  const patch = (old, fresh) => {
    const parts = (block) => [...block.querySelectorAll("[data-part]")];
    const [before, after] = [parts(old), parts(fresh)];
    const isSameKind =
      old.className === fresh.className &&
      before.length === after.length &&
      before.every((part, index) => part.dataset.part === after[index].dataset.part);
    if (!isSameKind) {
      old.replaceWith(fresh);
      return;
    }
    before.forEach((part, index) => part.isEqualNode(after[index]) || part.replaceWith(after[index]));
  };

  const show = (html) => {
    const said = announced();
    const hadFocus = live.contains(document.activeElement);
    const blocks = document.createElement("template");
    blocks.innerHTML = html;
    const ids = new Set([...blocks.content.children].map((block) => block.id));
    [...live.children].filter((block) => !ids.has(block.id)).forEach((block) => block.remove());
    [...blocks.content.children].forEach((fresh, position) => {
      const old = document.getElementById(fresh.id);
      if (old) {
        patch(old, fresh);
      } else {
        live.insertBefore(fresh, live.children[position] ?? null);
      }
    });
    // If the focused element is gone, the headline gets the focus.
    if (hadFocus && !live.contains(document.activeElement)) {
      live.querySelector("[tabindex='-1']")?.focus();
    }
    document.title = live.querySelector("[data-title]")?.dataset.title ?? document.title;
    if (announced() !== said) {
      announcement.textContent = announced();
    }
  };

  source.onopen = () => { offline.hidden = true; };
  source.onerror = () => { offline.hidden = false; };
  source.onmessage = (event) => show(JSON.parse(event.data));
  // The routes of a sign-in say that it has changed. Its page shows how.
  source.addEventListener("status", async (event) => {
    if (JSON.parse(event.data).has_ended) {
      source.close();
    }
    const page = await fetch(location.href, { headers: { accept: "text/html" } });
    const parsed = new DOMParser().parseFromString(await page.text(), "text/html");
    show(parsed.getElementById("live").innerHTML);
  });
  source.addEventListener("last", (event) => {
    source.close();
    show(JSON.parse(event.data));
  });
}
