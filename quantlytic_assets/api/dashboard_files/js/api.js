// Requests with the key of this tab, if there is one.

const NAME = "quantlytic-key";

export function key() {
  return sessionStorage.getItem(NAME);
}

export function useKey(text) {
  if (text) sessionStorage.setItem(NAME, text);
  else sessionStorage.removeItem(NAME);
}

export async function get(path) {
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  const answer = await fetch(path, { headers });
  if (answer.ok) return answer.json();
  let detail = `${answer.status} ${answer.statusText}`;
  try {
    detail = (await answer.json()).detail ?? detail;
  } catch {
    // An answer without a body has said all that it says.
  }
  const error = new Error(detail);
  error.status = answer.status;
  throw error;
}
