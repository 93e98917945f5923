"""Views of the installation itself."""
