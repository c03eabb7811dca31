"""Pages and pictures: reports, contact sheets, previews of views, reward plots."""
