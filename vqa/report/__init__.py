"""Pages and pictures for people: report.html, contact sheets, previews of views, plots of rewards."""
