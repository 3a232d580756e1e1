// What useSyncedUser.ts does, without React. The page's own address brings what
// Next.js and Clerk would: /#api=<address of the server>&token=<session token>, and what some pages add:
// &headers=<names>, &credentials=include, and &path=<path>&body=<JSON> for a route of an application
const { api, token, headers, credentials, path, body: json } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

async function sync() {
  const response = await fetch(`${api}${path ?? '/api/user/sync'}`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${token}`,
      ...(json && { 'Content-Type': 'application/json' }),
      ...Object.fromEntries((headers?.split(',') ?? []).map((name) => [name, '1'])),
    },
    ...(credentials && { credentials }),
    body: json,
  });
  const body = await response.json();
  if (response.ok) return path ? `Created ${body.data.title}` : `${body.data.name}, ${body.data.email}`;
  const retryAfter = response.headers.get('Retry-After');
  return retryAfter ? `${body.message}, retry after ${retryAfter}` : body.message;
}

const text = document.querySelector('p');
text.textContent = await sync().catch(() => 'The server cannot be reached');
navigator.sendBeacon('/shown', text.innerText); // tells the test what a person sees
