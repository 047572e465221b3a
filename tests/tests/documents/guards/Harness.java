package shop;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import jakarta.servlet.FilterChain;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.lang.reflect.Proxy;
import java.net.InetSocketAddress;

/** A shop behind the guard, in as much of a servlet container as it takes. Arguments: the port. */
public final class Harness {
    private static int effects = 0;
    private static int status;

    public static void main(String[] arguments) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
        server.createContext("/", Harness::serve);
        server.start();
    }

    private static void serve(HttpExchange exchange) throws IOException {
        exchange.getRequestBody().readAllBytes();
        String path = exchange.getRequestURI().getPath();
        status = 200;
        HttpServletRequest request = as(HttpServletRequest.class, (name, values) -> switch (name) {
            case "getMethod" -> exchange.getRequestMethod();
            case "getRequestURI" -> path;
            case "getHeader" -> exchange.getRequestHeaders().getFirst((String) values[0]);
            default -> throw new IllegalStateException(name);
        });
        HttpServletResponse response = as(HttpServletResponse.class, (name, values) -> {
            switch (name) {
                case "setHeader" -> exchange.getResponseHeaders().set((String) values[0], (String) values[1]);
                case "setStatus" -> status = (Integer) values[0];
                default -> throw new IllegalStateException(name);
            }
            return null;
        });
        FilterChain shop = (anyRequest, anyResponse) -> {
            if (exchange.getRequestMethod().equals("POST")) {
                status = ShadowGuard.outward(() -> {
                    effects += 1;
                    return 201;
                }, 201);
            }
        };
        try {
            new ShadowGuard().doFilter(request, response, shop);
        } catch (jakarta.servlet.ServletException error) {
            status = 500;
        }
        byte[] body = (path.equals("/effects") ? String.valueOf(effects) : "").getBytes();
        exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    private interface Method {
        Object call(String name, Object[] values);
    }

    private static <T> T as(Class<T> type, Method method) {
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type},
            (proxy, called, values) -> method.call(called.getName(), values)));
    }
}
