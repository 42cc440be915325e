weave() {
  echo "woven"
}
weave "$@"
