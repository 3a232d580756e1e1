// What the README's useSyncedUser() does, without React. The page's own address brings what
// Next.js and Clerk would: /#api=<address of the server>&token=<session token>, and what some pages add:
// &headers=<names> and &credentials=include
const { api, token, headers, credentials } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

async function sync() {
  const response = await fetch(`${api}/api/user/sync`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${token}`,
      ...Object.fromEntries((headers?.split(',') ?? []).map((name) => [name, '1'])),
    },
    ...(credentials && { credentials }),
  });
  const body = await response.json();
  if (response.ok) return `${body.data.name}, ${body.data.email}`;
  const retryAfter = response.headers.get('Retry-After');
  return retryAfter ? `${body.message}, retry after ${retryAfter}` : body.message;
}

const text = document.querySelector('p');
text.textContent = await sync().catch(() => 'The server cannot be reached');
navigator.sendBeacon('/shown', text.innerText); // tells the test what a person sees
