"use strict";

// Boxes of tables that are wider than they may be: `cut` where something is hidden at the right.
{
  const boxes = [...document.querySelectorAll(".wide")];
  const look = (box) => {
    const hidden = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("cut", hidden > 1);
  };
  for (const box of boxes) box.addEventListener("scroll", () => look(box), { passive: true });
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => look(target)));
  for (const box of boxes) resized.observe(box);
}

// Text is selected where the browser lets no script copy it, as of a page opened as a file.
for (const button of document.querySelectorAll("[data-copy]")) {
  const text = button.parentElement.querySelector("code");
  button.hidden = false;
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected: copy with Ctrl+C";
    }
  };
}
