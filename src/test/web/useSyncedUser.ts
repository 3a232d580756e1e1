'use client';
import { useAuth } from '@clerk/nextjs';
import { useEffect, useState } from 'react';

export type User = {
  id: string;
  email: string;
  name: string | null;
  imageUrl: string | null;
  createdAt: string;
  updatedAt: string;
};

/**
 * Makes sure that the signed-in user has a row, and returns it; for components under <ClerkProvider>. Set NEXT_PUBLIC_API_URL
 * to the server's address. Several tabs, or React calling effects twice, do no harm.
 */
export function useSyncedUser() {
  const { userId, getToken } = useAuth();
  const [user, setUser] = useState<User | null>(null);
  const [error, setError] = useState<string | null>(null);

  useEffect(() => {
    if (!userId) return;
    const aborted = new AbortController();
    (async () => {
      const response = await fetch(`${process.env.NEXT_PUBLIC_API_URL}/api/user/sync`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${await getToken()}` },
        signal: aborted.signal,
      });
      const body = await response.json();
      if (aborted.signal.aborted) return;
      if (response.ok) setUser(body.data);
      else setError(body.message);
    })().catch(() => {
      if (!aborted.signal.aborted) setError('The server cannot be reached');
    });
    return () => {
      aborted.abort();
      setUser(null);
      setError(null);
    };
  }, [userId, getToken]);

  return { user, error };
}
