// What the README's useSyncedUser() does, without React. The page's own address brings what
// Next.js and Clerk would: /#api=<address of the server>&token=<session token>
const { api, token } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

async function sync() {
  const response = await fetch(`${api}/api/user/sync`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${token}` },
  });
  const body = await response.json();
  return response.ok ? `${body.data.name}, ${body.data.email}` : body.message;
}

const text = document.querySelector('p');
text.textContent = await sync().catch(() => 'The server cannot be reached');
navigator.sendBeacon('/shown', text.innerText); // tells the test what a person sees
