// Talking to the server: JSON in, JSON out; what is refused becomes an Error with the server's own line.

async function answered(response) {
  if (response.ok) return response.status === 204 ? null : response.json();
  const said = await response.json().catch(() => ({}));
  const error = new Error(said.error ?? `the studio answered ${response.status}`);
  error.status = response.status;
  error.retry = Number(response.headers.get("retry-after")) || 0;
  throw error;
}

async function ask(address, options) {
  try {
    return await answered(await fetch(address, options));
  } catch (error) {
    if (error instanceof TypeError) throw new Error("the studio does not answer; is it still running?");
    throw error;
  }
}

export const get = (address) => ask(address);
export const remove = (address) => ask(address, { method: "DELETE" });
export const post = (address, body) =>
  ask(address, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body ?? {}) });

/** Upload a file; `maskFor` is the id of the image that it is a mask for. */
export function upload(blob, name, maskFor) {
  const form = new FormData();
  form.append("file", blob, name);
  const query = maskFor ? `?mask_for=${encodeURIComponent(maskFor)}` : "";
  return ask(`/api/images${query}`, { method: "POST", body: form });
}

export const previewOf = (id, side = 2048) => `/api/images/${id}/preview?side=${side}`;
export const archiveOf = (id) => `/api/archives/${id}`;
export const fileOf = (id, format, quality) =>
  `/api/files/${id}` + (format ? `?format=${format}${quality ? `&quality=${quality}` : ""}` : "");
