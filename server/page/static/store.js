// The conversation in this browser's own storage.

const NAME = "reasond.chat";
const EMPTY = { columns: [], turns: [] };

/** What was on the page. A reply that was running when it was left is marked so. */
export function load() {
  try {
    const chat = JSON.parse(localStorage.getItem(NAME)) ?? EMPTY;
    for (const reply of chat.turns.flatMap((turn) => turn.replies)) {
      if (reply.status === "running") Object.assign(reply, { status: "failed", error: "The page was left before the reply was complete." });
    }
    return { columns: chat.columns, turns: chat.turns };
  } catch {
    return structuredClone(EMPTY); // of another version, or not ours
  }
}

/** Where there is no room for all of it, the oldest turns are not kept. */
export function save({ columns, turns }) {
  for (let first = 0; first <= turns.length; first++) {
    try {
      return localStorage.setItem(NAME, JSON.stringify({ columns, turns: turns.slice(first) }));
    } catch {
      continue;
    }
  }
  return undefined;
}
