// Every JavaScript attack begins with this.
const attempt = (action) => {
  try {
    return `ESCAPED ${String(action())}`;
  } catch (error) {
    return `DENIED ${error.name}`;
  }
};

