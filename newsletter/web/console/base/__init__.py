"""What each console page needs: permissions, session cookie, layout."""
