// A shop behind the guard, without Express: what the guard uses is Node's own. Arguments: the port.
const http = require("http");
const { outward, shadowGuard } = require("./shadow-guard.js");

let effects = 0;
const guard = shadowGuard({ neutral: ["/orders"] });

function shop(req, res) {
  if (req.method === "POST") {
    outward(() => (effects += 1));
    res.statusCode = 201;
    return res.end();
  }
  return res.end(req.url === "/effects" ? String(effects) : "");
}

http.createServer((req, res) => guard(req, res, () => shop(req, res))).listen(Number(process.argv[2]), "127.0.0.1");
